"""Decisions by block: tokens that members draft ahead, held against what a rule would have decided."""
