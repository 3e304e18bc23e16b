"""Programs that do the same work as what is measured, each in a process of its own."""
