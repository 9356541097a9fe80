"""Filling outcome tables: by asking members of a configuration, or from tables of others."""
