"""The vLLM engine: sessions, scores and generations as requests of one ``AsyncLLM``."""
