"""What the replicas of models and ensembles have in common, and what drivers may know of them. Imports no engine."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from ray.serve.config import RequestRouterConfig
from ray.serve.schema import LoggingConfig

from ensemble.member import Card
from ensemble.vocabulary import Vocabulary

PINNED = RequestRouterConfig(
    request_router_class="ray.serve.experimental.consistent_hash_router.ConsistentHashRouter",
    request_router_kwargs={"num_fallback_replicas": 0},
)
"""Calls with equal session ids go to one replica, always: another would not know the session."""

LOGGING = LoggingConfig(log_level="WARNING", enable_access_log=False)
"""A log line for every message of every session would cost more than the message."""

CONCURRENT_CALLS = 4096
"""Calls under way at one replica; sessions and slots bound the work, not this."""


GRACE = 30.0
"""Seconds that a replica which is stopped has for what is under way, unless the configuration says otherwise."""


WATCHED = {"health_check_period_s": 2.0}
"""Options of a deployment whose lost replicas are soon noticed. Until then Serve keeps some calls for them, and so many
of those at once that calls to other replicas wait behind them; its own period is 10 s."""


def ending(grace: float) -> dict[str, float]:
    """Options of a deployment that lets its replicas end what is under way, for so many seconds."""
    return {"graceful_shutdown_timeout_s": grace, "graceful_shutdown_wait_loop_s": min(0.5, grace)}


@dataclass(frozen=True, slots=True)
class Description:
    """What a driver learns of a member when it connects."""

    card: Card
    vocabulary: Vocabulary | None
    """``None`` for members without sessions."""


def new_session(name: str) -> str:
    """The key of a session with the model or adapter served under this name. Nobody else can guess it."""
    return f"{name}/{secrets.token_hex(16)}"


def served_name(session: str) -> str:
    """
    >>> served_name(new_session("adder"))
    'adder'
    """
    return session.partition("/")[0]
