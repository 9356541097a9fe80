"""Cost heads: what an answer of each member to a query will cost."""
