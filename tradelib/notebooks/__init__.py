"""Running notebooks, and what a notebook sees of the desk."""

from tradelib.notebooks.desk import Desk, open_desk

__all__ = ["Desk", "open_desk"]
