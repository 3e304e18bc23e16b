"""The operator's console: server-rendered pages under `/console`, which work without scripts.

Imported only where the web side is on. A page is a template filled from the services; an act is a form that is posted,
audited, and answered with a redirect to its page.
"""
