"""The `desk` command."""

from tradelib.cli.app import main

__all__ = ["main"]
