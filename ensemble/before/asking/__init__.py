"""Asking a model who should answer, or how well somebody would."""
