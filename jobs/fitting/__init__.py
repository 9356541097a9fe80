"""``ensemble fit``: what methods learn, from a configuration's models and a file; one file per method."""
