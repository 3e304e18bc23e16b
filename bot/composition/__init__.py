"""Composition root: builds every object and hands each one its dependencies."""
