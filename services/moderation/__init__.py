"""Groups kept clean: what is judged, by whom, and what follows from it."""
