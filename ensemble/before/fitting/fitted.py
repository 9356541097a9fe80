"""Fitting a router, setting its policy's knob, and telling how well both do on queries that neither has seen.

Knows nothing of files or of who asks for the fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ensemble.before.encoders.encoder import Encoder
from ensemble.before.encoders.tfidf import Tfidf
from ensemble.before.fitting.training import FitOptions, Training
from ensemble.before.knobs import Knob, decided
from ensemble.before.knobs.decided import tokens
from ensemble.before.policies import Policy, Prediction
from ensemble.before.routing.method import Routing
from ensemble.before.routing.router import Router
from ensemble.errors import BadRequest
from ensemble.outcomes.bootstrap import apart
from ensemble.outcomes.dense import Dense, Floats, Ints, mean_observed
from ensemble.outcomes.references import CHANCE, ORACLE, SINGLE, Taken, references


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """Embeddings of all queries of a table, and what makes those of others."""

    x: Floats
    """[n, d] float32, unit rows."""
    encoder: Encoder | None = None
    """Kept with the router; ``None``: it is served elsewhere."""
    identity: str = ""
    """Name and fingerprint of a served encoder; empty: kept with the router, or nobody knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A router that was fitted, the policy that it is to be served with, and what is known of both."""

    method: str
    router: Router
    policy: Policy
    metrics: Mapping[str, float]
    """On queries that were not fitted to; empty where there are none that can be compared."""
    members: tuple[str, ...] = ()
    """The router's members that those queries have outcomes of."""
    taken: Taken | None = None
    """What came of those queries; positions are of these members."""
    references: Sequence[Taken] = ()
    """What came of them by other ways."""


def by_ngrams(table: Dense, fit: Ints, seed: int = 0) -> Embedded:
    """Embeddings of character n-grams, by an encoder that is fitted to a part of the queries.

    Args:
        fit: positions of that part.

    Raises:
        BadRequest: a query has no text.
    """
    texts = _texts(table)
    encoder = Tfidf.fit([texts[row] for row in fit], seed=seed)
    return Embedded(x=encoder.embed(texts), encoder=encoder)


def by_features(table: Dense) -> Embedded:
    """The embeddings that came with the table.

    Raises:
        BadRequest: there are none.
    """
    if table.features is None:
        rule = "the table came with no embeddings of its queries"
        raise BadRequest(f"{rule}; allowed: tfidf, or the name of an encoder of the configuration", param="encoder")
    return Embedded(x=table.features.astype(np.float32))


def by_encoder(table: Dense, encoder: Encoder) -> Embedded:
    """Embeddings of an encoder that was fitted before."""
    return Embedded(x=encoder.embed(_texts(table)), encoder=encoder)


def _texts(table: Dense) -> list[str]:
    texts = [text for text in table.texts if text is not None]
    if len(texts) < len(table):
        missing = table.queries[table.texts.index(None)]
        raise BadRequest(f"query {missing!r} has no text to embed; allowed: features", param="encoder")
    return texts


def fitted(
    method: type[Routing],
    fit: Training,
    held: Training | None = None,
    options: FitOptions | None = None,
    policy: Policy | None = None,
    knob: Knob | None = None,
    encoder: Encoder | None = None,
) -> Fitted:
    """
    Args:
        held: queries that are not fitted to. Only those with an outcome at every member of the router count. With a
            knob, it is set on one half and told of on the other.
        options: omitted: the method's defaults.
        policy: omitted: the method's own, or with a knob one that has it.
        encoder: made the embeddings, and is kept with the router.

    Raises:
        BadRequest: the table lacks what the router learns from, or the knob cannot be set.
        ConfigurationError: the policy names somebody else.
    """
    router = method.fit(fit, options or method.Fit())
    if method.takes_encoder:
        router = replace(router, encoder=encoder)
    decides = policy or method.policy
    if knob is not None and policy is None:
        decides = knob.fitting(decides, priced=bool((fit.table.cost > 0).any()))
    decides.check(router.members)
    held = _comparable(router, held)
    if knob is not None:
        if held is None or len(held.table) < 2:
            rule = f"{knob.of} is set on queries that were not fitted to and that every member has answered"
            raise BadRequest(f"{rule}; leave some out with split", param=knob.of)
        setting, held = _halves(held)
        decides = knob.set(decides, _predicted(router, setting), setting.table)
    if held is None:
        return Fitted(method=method.name, router=router, policy=decides, metrics={})
    return _told(method.name, router, decides, fit, held)


def _comparable(router: Router, held: Training | None) -> Training | None:
    """Queries at the router's members only, each with an outcome at all of them; ``None`` where there are none."""
    if held is None:
        return None
    # A router may leave members out, or make some of its own of which the table has no outcomes.
    names = [name for name in router.members if name in held.table.members]
    held = replace(held, table=held.table.among(names))
    return held.rows(held.table.complete) if held.table.complete.any() else None


def _halves(held: Training) -> tuple[Training, Training]:
    other, one = held.held_out(0.5)
    return one, other


def _predicted(router: Router, asked: Training) -> Prediction:
    """For the members that the table has, in its order."""
    places = [router.place(name) for name in asked.table.members]
    best = places.index(router.best) if router.best in places else 0
    return router.predict(asked.x, tokens(asked.table)).among(places, best)


def _told(name: str, router: Router, policy: Policy, fit: Training, held: Training) -> Fitted:
    prediction = _predicted(router, held)
    own = decided(name, policy, prediction, held.table, router.doubtful(held.x), held.seed)
    others = references(fit.table.among(held.table.members), held.table)
    metrics = {key: value for key, value in _metrics(own, others, len(fit.table), held.seed) if not np.isnan(value)}
    return Fitted(
        method=name,
        router=router,
        policy=policy,
        metrics=metrics,
        members=held.table.members,
        taken=own,
        references=others,
    )


def _metrics(own: Taken, others: Sequence[Taken], fitted_to: int, seed: int) -> Iterator[tuple[str, float]]:
    named = {other.name: other for other in others}
    gain = np.asarray(own.quality - named[SINGLE].quality, float)
    low, high = apart(gain, seed=seed)
    yield from (("quality", own.point.quality), ("cost", own.point.cost))
    yield from (("best_single", named[SINGLE].point.quality), ("best_single_cost", named[SINGLE].point.cost))
    yield from (("random", named[CHANCE].point.quality), ("oracle", named[ORACLE].point.quality))
    yield from (("gain", float(gain.mean())), ("gain_low", low), ("gain_high", high))
    yield from (("fitted_to", float(fitted_to)), ("tested_on", float(len(gain))))


def widened(router: Router, member: str, table: Dense, x: Floats) -> Router:
    """A router with one more member, learned from the queries that it has answered; nothing is fitted again.

    Args:
        table: with a column of that name.
        x: [n, d], embeddings of its queries.

    Raises:
        BadRequest: the table has no such member, the router knows it, or cannot take anybody without a fit.
    """
    if member not in table.members:
        has = ", ".join(table.members)
        raise BadRequest(f"the table has no outcomes of {member!r}; it has: {has}", param="add_member")
    own = table.among([member])
    seen = own.observed[:, 0]
    cost, length = (float(mean_observed(values)[0]) for values in (own.cost, own.output_tokens))
    return router.widened(member, x[seen], own.quality[seen, 0].astype(float), cost, length)
