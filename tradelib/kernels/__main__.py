"""`python -m tradelib.kernels`: a fork server; see `server.py`."""

from tradelib.kernels.server import main

main()
