"""Judges: what tells a good step or answer from a bad one. One file per kind; the contract is ``judge.py``."""
