"""Signals from outside a message: public lists of spammers' accounts, and campaigns that other groups have seen.

A signal sends a message to the judge and adds to the local score. It never deletes, mutes or bans, with a model or
without one, and every look-up is bounded: where a source does not answer, there is no signal.
"""
