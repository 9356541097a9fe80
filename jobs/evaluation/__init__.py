"""Measuring members and ensembles on questions with known answers: what is asked, what is right, what it proves."""
