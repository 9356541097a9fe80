"""LLM ensembles: the algorithms. Imports no Ray and no HTTP; see ``docs/architecture.md`` for the way of a request."""
