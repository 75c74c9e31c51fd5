"""Candles: their shape, their files, their store, their gaps and their freshness."""
