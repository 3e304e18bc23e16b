"""Budgets of a day: per user, chat and provider, and in all.

The cost of a request at its upper bound is reserved in every budget that it counts in, in one transaction before the
call, and replaced by its true cost afterwards. Requests side by side, on any replica, cannot overdraw a budget. A
reservation that its process no longer extends is given back.
"""
