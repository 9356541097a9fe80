"""Routers on an outcome table: fitted to one part of its queries, compared on another."""
