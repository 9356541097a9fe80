"""The OpenAI-compatible wire: what may be asked, how replies look, how bodies are read and errors told.

Knows no models, no methods and no Ray; ``deployments/gateway.py`` puts it to use.
"""
