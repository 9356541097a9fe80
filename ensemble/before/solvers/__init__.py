"""Solvers: how the numbers of heads are found from outcomes."""
