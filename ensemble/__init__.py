"""LLM ensembles: models that answer together, as one model. This is the one public door of the library.

Imports no Ray, no HTTP and no torch; see ``docs/architecture.md`` for the way of a request. What few need stays in its
module: judges in ``ensemble.judges``, test doubles in ``ensemble.testing``, the miniature models in ``ensemble.zoo``,
questions to a session and edits of it in ``ensemble.member``.

>>> import asyncio
>>> from ensemble import Ensemble, Request
>>> from ensemble.testing import ScriptedMember
>>> sure = ScriptedMember("sure", [b"4", b"2", b""], [b"4", b"2"])
>>> unsure = ScriptedMember("unsure", [b"2", b"4", b""], [b"4", {b"2": 0.4, b"": 0.6}])
>>> asyncio.run(Ensemble("pair", "gac", [sure, unsure]).answer(Request.of("6*7="))).text
'42'
"""

from ensemble.ensemble import Caps, Ensemble
from ensemble.errors import (
    BadAnswer,
    BadRequest,
    BodyTooLarge,
    BudgetExceeded,
    ConfigurationError,
    ContextTooLong,
    Draining,
    EnsembleError,
    MemberError,
    MemberLost,
    MemberTimeout,
    MissingCapability,
    OtherVersion,
    OverCap,
    Overloaded,
    QueueFull,
    UnknownModel,
    UnknownOption,
)
from ensemble.failures.policy import Policy
from ensemble.judges.judge import Judge
from ensemble.member import Capability, Card, Distribution, Member, Price, Proposal, Reply, Scored, Session
from ensemble.method import Members, Method, Options, Stage, method, methods
from ensemble.request import (
    Answer,
    Budget,
    Completion,
    Delta,
    Event,
    Finish,
    Incident,
    Message,
    Request,
    Sampling,
    Spent,
    TokenLogprob,
    Trace,
    Usage,
    collect,
)
from ensemble.vocabulary import Tokeniser, Vocabulary

__all__ = [
    "Answer",
    "BadAnswer",
    "BadRequest",
    "BodyTooLarge",
    "Budget",
    "BudgetExceeded",
    "Capability",
    "Caps",
    "Card",
    "Completion",
    "ConfigurationError",
    "ContextTooLong",
    "Delta",
    "Distribution",
    "Draining",
    "Ensemble",
    "EnsembleError",
    "Event",
    "Finish",
    "Incident",
    "Judge",
    "Member",
    "MemberError",
    "MemberLost",
    "MemberTimeout",
    "Members",
    "Message",
    "Method",
    "MissingCapability",
    "Options",
    "OtherVersion",
    "OverCap",
    "Overloaded",
    "Policy",
    "Price",
    "Proposal",
    "QueueFull",
    "Reply",
    "Request",
    "Sampling",
    "Scored",
    "Session",
    "Spent",
    "Stage",
    "TokenLogprob",
    "Tokeniser",
    "Trace",
    "UnknownModel",
    "UnknownOption",
    "Usage",
    "Vocabulary",
    "collect",
    "method",
    "methods",
]
