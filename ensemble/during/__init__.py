"""Ensembles during inference: members write one answer together, by token, by span or by step."""
