"""The frame of every page: sessions, navigation with its counts, status strip, templates, redirects and files.

The pages are built on it; it knows none of them.
"""
