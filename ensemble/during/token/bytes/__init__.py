"""Tokenised models as distributions over bytes: sorted vocabularies, covering trees, and the sessions behind them."""
