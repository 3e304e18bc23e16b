"""History of each provider over all replicas: metrics of its requests, and the time spans of its states.

The ledger adds the figures of a request in the transaction that records it. Figures are kept by the minute for a day,
by the hour for a month and by the day for a year.
"""
