"""Members that write in their own tokens and agree in bytes: partial answers, moves, search, and draws in turn."""
