"""The feed: what venues stream, into the candle store, the shared quotes and the ledger."""
