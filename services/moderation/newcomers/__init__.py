"""People who join: presence before the bot, trust, the join gate and raid mode.

Telegram reports each join to an admin bot. From the moment at which the bot sees the joins of a group, a member whose
join it has not seen was there before and is no newcomer. Those who join may have to press a button or to answer a
question before they write, always or while many join at once.
"""
