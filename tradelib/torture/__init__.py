"""Torture: random schedules of cycles, faults and killed processes against the paper exchange.

Real processes trade on a real ledger with an exchange whose faults are real answers on real
sockets; only time is virtual. At the end the books are compared with the exchange's own record.
"""
