"""Quality heads: families of models that say how well each member will answer a query."""
