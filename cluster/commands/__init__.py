"""Sub-commands of ``ensemble``, one module each; imported only when they are called."""
