"""Model construction per provider kind, HTTP transport, live model catalogs."""
