"""What is done with files: batch jobs, outcome tables, evaluation, tuning, fitting.

One module for each command: ``cli`` (``ensemble batch``), ``collect``, ``importing``, ``evaluate``, ``tune`` and
``fit``; the folders and the other modules hold what they do.
"""
