"""Fitting what methods need: from arrays and members to artifacts. One file per method; knows no engine."""
