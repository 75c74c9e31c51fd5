"""Prefect flows: when a notebook runs, and what happens when it fails. No trading logic."""
