"""Personal data: the registry of every table, Redis key and file that holds some, its erasure, and its retention.

`/forget` erases the data stored about one person. Conversations of groups stay with the groups, without the person's
name. Records that outlast it, such as budgets of the day, name people by keyed hashes (`services/pseudonyms.py`).
"""
