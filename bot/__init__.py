"""The surfaces: where people meet the services."""
