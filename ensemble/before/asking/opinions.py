"""Opinions: a model is told what each member is for and names one in JSON (as Arch-Router, arXiv 2506.16655, is asked).

Text in, text out; knows no router.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from ensemble.request import Request

OTHER = "other"
"""What the model says where nobody fits."""
LONGEST = 2048 * 4
"""Characters of the conversation that are shown, the last ones: about 2048 tokens."""

_PROMPT = """You choose who answers a conversation. The candidates, with what each is for:
<routes>
{routes}
</routes>

<conversation>
{conversation}
</conversation>

Say whose description fits best what the user wants last, by the exact name in <routes></routes>. Where none fits, say \
"other". Answer with this JSON and nothing else:
{{"route": "name"}}"""


def prompt(request: Request, descriptions: Mapping[str, str]) -> Request:
    """The question to the model, answered greedily in a few tokens.

    System messages are left out: they say how to answer, not what is asked.
    """
    routes = "\n".join(json.dumps({"name": name, "description": text}) for name, text in descriptions.items())
    text = _PROMPT.format(routes=routes, conversation=_conversation(request))
    return Request.of(text, max_tokens=24 + max(len(name) for name in descriptions))


def _conversation(request: Request) -> str:
    turns = [f"{message.role}: {message.content}" for message in request.messages if message.role != "system"]
    return "\n".join(turns or [f"user: {request.question}"])[-LONGEST:]


def named(text: str, names: Sequence[str]) -> str | None:
    """Whom a model's answer names; ``None`` where it names nobody that there is, says "other", or cannot be read.

    >>> named('So: {"route": "coder"}', ["coder", "writer"]), named("{'route': 'other'}", ["coder"])
    ('coder', None)
    """
    for found in re.findall(r"\{[^{}]*\}", text):
        route = _route(found)
        if route in names and route != OTHER:
            return route
    return None


def _route(text: str) -> str | None:
    """The value of ``route``, quoted in either way."""
    try:
        value = json.loads(text)
    except ValueError:
        found = re.search(r"""["']?route["']?\s*:\s*'([^']*)'""", text)
        return found[1] if found else None
    route = value.get("route") if isinstance(value, dict) else None
    return route if isinstance(route, str) else None
