"""The library behind Notedesk's notebooks: venues, candles, strategies, orders and pages.

Rooms, each importing only from those before it (and from errors, clock, settings, logs):
services, venue, candles, paper, strategy, research, trading, kernels, notebooks, views, cli.
"""
