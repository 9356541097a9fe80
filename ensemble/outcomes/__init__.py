"""Outcomes: which member answered which question how well, and at what cost."""
