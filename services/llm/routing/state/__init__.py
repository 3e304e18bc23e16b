"""The routing state: pure rules, the copy of this replica, its form in Redis."""
