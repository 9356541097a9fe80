"""Ensembles after inference: whole answers, of which one is chosen."""
