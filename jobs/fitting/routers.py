"""``ensemble fit ROUTER``: routers fitted to an outcome table, each an artifact that a configuration can name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from ensemble.artifacts import Manifest, manifest_of
from ensemble.before.fitting.fitted import Embedded, Fitted, by_encoder, by_features, by_ngrams, fitted, widened
from ensemble.before.fitting.training import FitOptions, Training
from ensemble.before.knobs import Knob
from ensemble.before.policies import Policy
from ensemble.before.routing.loading import FEEDBACK
from ensemble.before.routing.method import Routing
from ensemble.before.routing.router import KIND, Router, keep, kept
from ensemble.errors import BadRequest, ConfigurationError, UnknownOption
from ensemble.outcomes import splits
from ensemble.outcomes.dense import Dense
from ensemble.outcomes.splits import Split
from ensemble.outcomes.table import Outcomes, read

Served = Callable[[str, Sequence[str]], tuple[np.ndarray, str]]
"""Embeddings [n, d] of texts by the encoder of this name, and its name with its fingerprint."""
SHARE = 0.8
"""Of the queries, that is fitted to where nobody says how many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be fitted, to what, and where it goes."""

    routers: Mapping[str, type[Routing]]
    outcomes: Path
    output: Path
    """Folder of the artifact; with several routers, of a folder for each."""
    members: Sequence[str] = ()
    """Empty: all of the table."""
    encoder: str | None = None
    """``tfidf``, ``features`` or the name of a served one; ``None``: TF-IDF, or features where queries lack a text."""
    served: Served | None = None
    policy: Policy | None = None
    knob: Knob | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    split: float | None = None
    """Share of the queries that is fitted to, up to 1; ``None``: the table's own parts, or ``SHARE``."""
    seed: int = 0
    feedback: int | None = None
    """Number of the last piece of a service's feedback that is among the outcomes: the service lets the router learn
    only what came later. ``None``: none is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was fitted, and what was not."""

    fitted: Sequence[Fitted]
    refused: Mapping[str, str]
    """Routers that the table does not do for, and why."""
    encoder: str
    folders: Mapping[str, Path]
    """Of the artifacts, by method."""
    left_out: Sequence[str] = ()
    """Members of the table of whose answers nothing is known in the part that is fitted to."""


def run(order: Order, told: Callable[[str], None]) -> Report:
    """Fit and keep; a router that refuses the table is told of, unless it is the only one.

    Args:
        told: the name of the router that is fitted next.

    Raises:
        BadRequest: the table, a name, an option or the policy cannot be used, or no router was fitted.
    """
    several = len(order.routers) > 1
    if several and order.options:
        raise BadRequest("options are those of one router; name one, or leave --option out", param="option")
    options = {name: options_for(method, order.options) for name, method in order.routers.items()}
    outcomes = read(order.outcomes, responses=False)
    if order.members:
        outcomes = outcomes.among(order.members)
    table, split = outcomes.dense(), _split(outcomes, order)
    table, left_out = _answering(table, split, order)
    encoder, embedded = _embedded(order, table, split)
    parts = [_training(table, embedded, rows, order.seed) for rows in split]
    done, refused = list[Fitted](), dict[str, str]()
    folders = {name: order.output / name if several else order.output for name in order.routers}
    data = digest(order.outcomes)
    for name, method in order.routers.items():
        told(name)
        try:
            found = _fitted(method, options[name], parts, order, embedded)
        except (BadRequest, ConfigurationError) as error:
            if not several:
                raise BadRequest(error.message, param=error.param) from error
            refused[name] = error.message
        except Exception as error:
            # One router that breaks on a table does not cost those that were fitted.
            if not several:
                raise
            refused[name] = f"its fit broke: {type(error).__name__}: {error}"
        else:
            keep(folders[name], name, found.router, _manifest(found, order, options[name], encoder, embedded, data))
            done.append(found)
    if not done:
        raise BadRequest("; ".join(f"{name}: {why}" for name, why in refused.items()), param="routers")
    return Report(
        fitted=done, refused=refused, encoder=embedded.identity or encoder, folders=folders, left_out=left_out
    )


def _fitted(
    method: type[Routing], options: FitOptions, parts: Sequence[Training], order: Order, embedded: Embedded
) -> Fitted:
    fit, held = parts
    return fitted(method, fit, held if len(held.table) else None, options, order.policy, order.knob, embedded.encoder)


def options_for(method: type[Routing], given: Mapping[str, Any]) -> FitOptions:
    """
    Raises:
        UnknownOption: the fit has no such option; the message lists those it has.
        BadRequest: a value that an option does not allow.
    """
    known = method.Fit.model_fields
    for name in given:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f", did you mean {close[0]!r}?" if close else ""
            allowed = ", ".join(sorted(known)) or "none"
            rule = f"the fit of {method.name} has no option {name!r}{hint}; it has: {allowed}"
            raise UnknownOption(rule, param=name)
    try:
        return method.Fit.model_validate(dict(given))
    except ValidationError as error:
        problem = error.errors()[0]
        option = ".".join(str(part) for part in problem["loc"])
        raise BadRequest(f"option {option!r} of the fit of {method.name}: {problem['msg']}", param=option) from error


def digest(path: Path) -> str:
    """Changes whenever the table does."""
    found = hashlib.sha256()
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        if file.suffix in (".parquet", ".npy"):
            with file.open("rb") as stream:
                found.update(hashlib.file_digest(stream, "sha256").digest())
    return found.hexdigest()[:16]


def _split(outcomes: Outcomes, order: Order) -> Split:
    share = order.split
    if share is None and {"train", "test"} <= set(outcomes.column("split")):
        return splits.by_column(outcomes, ("train",), ("test",))
    share = SHARE if share is None else share
    if not 0 < share <= 1:
        raise BadRequest(f"--split is the share that is fitted to, above 0 and at most 1; got {share:g}", param="split")
    if share == 1:
        return Split(np.arange(len(outcomes)), np.arange(0))
    return splits.random(outcomes, 1 - share, order.seed)


def _answering(table: Dense, split: Split, order: Order) -> tuple[Dense, list[str]]:
    """The table without the members that there is nothing to learn of, and these.

    Raises:
        BadRequest: one of them was asked for by name, or nobody is left.
    """
    seen = np.asarray(table.observed[split.fit].any(axis=0))
    silent = [name for name, known in zip(table.members, seen, strict=True) if not known]
    if silent and (order.members or not seen.any()):
        rule = f"no query that is fitted to has an outcome with a quality of {', '.join(silent)}"
        raise BadRequest(f"{rule}; leave it out of --members, or fit to more with --split", param="members")
    return (table.among([name for name in table.members if name not in silent]) if silent else table), silent


def _embedded(order: Order, table: Dense, split: Split) -> tuple[str, Embedded]:
    """Embeddings, and what they are called."""
    name = order.encoder or ("tfidf" if None not in table.texts or table.features is None else "features")
    if name == "tfidf":
        return name, by_ngrams(table, split.fit, order.seed)
    if name == "features":
        return name, by_features(table)
    return name, by_name(name, table, order.served)


def by_name(name: str, table: Dense, served: Served | None) -> Embedded:
    """Embeddings of a served encoder.

    Raises:
        BadRequest: there is none of this name, or a query has no text.
    """
    if served is None:
        raise BadRequest(f"no encoder is named {name!r}; allowed: tfidf, features", param="encoder")
    if None in table.texts:
        missing = table.queries[table.texts.index(None)]
        raise BadRequest(f"query {missing!r} has no text to embed; allowed: features", param="encoder")
    x, identity = served(name, [text or "" for text in table.texts])
    return Embedded(x=x, identity=identity)


def _training(table: Dense, embedded: Embedded, rows: np.ndarray, seed: int) -> Training:
    return Training(table=table.rows(rows), x=embedded.x[rows], seed=seed)


def _manifest(
    found: Fitted, order: Order, options: FitOptions, encoder: str, embedded: Embedded, data: str
) -> Manifest:
    settings: dict[str, Any] = {"options": options.model_dump(mode="json"), "encoder": encoder, "seed": order.seed}
    settings |= {"policy": found.policy.model_dump(mode="json"), "split": order.split}
    if order.knob is not None:
        settings[order.knob.of] = order.knob.value
    if order.feedback is not None:
        settings[FEEDBACK] = order.feedback
    return Manifest(
        method=found.method,
        kind=KIND,
        encoder=embedded.identity,
        data=data,
        settings=settings,
        metrics=dict(found.metrics),
    )


def add(
    method: str, member: str, source: Path, outcomes: Path, output: Path, served: Served | None
) -> tuple[Router, int]:
    """Keep the router of a folder with one more member, who is learned from few outcomes; nothing is fitted again.

    Returns:
        It, and how many outcomes with a quality the table has of that member.

    Raises:
        BadRequest: the table does not have the member, the router does, or it takes nobody without a fit.
        ConfigurationError: the folder holds no router of this method.
    """
    router, manifest = kept(source, method), manifest_of(source)
    table = read(outcomes, responses=False).dense()
    if router.encoder is not None:
        embedded = by_encoder(table, router.encoder)
    elif not router.head.reads:
        # It never looks at a question, so there is nothing to embed.
        embedded = Embedded(x=np.zeros((len(table), 1), np.float32), identity=manifest.encoder)
    elif manifest.encoder:
        embedded = by_name(manifest.encoder.partition(" ")[0], table, served)
    else:
        embedded = by_features(table)
    if embedded.identity != manifest.encoder:
        rule = f"the router was fitted on embeddings of {manifest.encoder}, but the encoder is {embedded.identity} now"
        raise ConfigurationError(f"{rule}; fit the router again", param="encoder")
    wider = widened(router, member, table, embedded.x)
    count = int(table.among([member]).observed.sum())
    added = {**manifest.settings.get("added", {}), member: {"outcomes": count, "data": digest(outcomes)}}
    changed = {"settings": {**manifest.settings, "added": added}}
    keep(output, method, wider, manifest.model_copy(update=changed))
    return wider, count
