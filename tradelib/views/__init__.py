"""Figures and tables that notebooks and dashboards share; they read the ledger and candles."""
