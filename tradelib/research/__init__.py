"""Research: backtests and what shows them."""
