"""Resident heads: small modules that live at a member and read each of its positions; one file per kind.

A head makes of a position (the next-token log-probabilities, the last hidden state, or both) log-probabilities of
outcomes of its own. It is declared in the configuration, loaded from an artifact, and runs in the engine's forward
pass, for all sessions at once; a driver asks for its outcomes (``Next.head``) or lets it end a proposal
(``Until.gate``).
"""

from __future__ import annotations

from ensemble.heads.head import Head, build, kinds

__all__ = ["Head", "build", "kinds"]
