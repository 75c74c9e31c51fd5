"""The desk's child processes: what they are, and what keeps them.

`definitions` says what the desk runs, `supervisor` keeps it running and ends it, `addresses` tells
where it is. Nothing here knows about trading.
"""
