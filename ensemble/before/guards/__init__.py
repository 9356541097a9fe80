"""Guards: when a router's predictions are not to be trusted."""
