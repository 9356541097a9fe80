"""Fits: what a router is fitted to, and how it is fitted, set and judged."""
