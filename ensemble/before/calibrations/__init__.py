"""Calibrations: from a head's scores to expected quality."""
