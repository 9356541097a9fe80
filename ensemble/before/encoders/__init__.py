"""Sentence encoders: texts to unit vectors."""
