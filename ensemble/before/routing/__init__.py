"""Fitted routers, and how they are served."""
