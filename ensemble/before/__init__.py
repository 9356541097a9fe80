"""Ensembles before inference: which member answers is decided from the query alone."""
