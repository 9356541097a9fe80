"""Sub-commands of ``ensemble`` for work on many rows, one module each; imported only when they are called."""
