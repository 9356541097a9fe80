"""A fitted router: an encoder, a quality head, a cost head, and who is best overall; saved as an artifact.

Knows nothing of policies, nor of how its choice is carried out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from ensemble.artifacts import Artifact, Manifest, load, save
from ensemble.before.calibrations.calibration import Calibration
from ensemble.before.costs.cost import Costs
from ensemble.before.encoders.encoder import Encoder
from ensemble.before.guards.guard import Guard
from ensemble.before.heads.head import Head, Outcome, Preference
from ensemble.before.policies.policy import Prediction
from ensemble.before.routing.parts import NeedsFit, Part
from ensemble.errors import BadRequest, ConfigurationError
from ensemble.method import methods
from ensemble.outcomes.dense import Floats

KIND = "routing"
"""Of artifacts that hold a router."""


@dataclass
class Router(Part, kind=KIND):
    """What ``fit`` of a method gives."""

    members: tuple[str, ...]
    """Whom it chooses from; positions everywhere are of this order."""
    best: int
    """The member with the highest mean quality in the data that it was fitted to: who answers in doubt."""
    head: Head
    costs: Costs
    calibration: Calibration | None = None
    """From scores to expected quality; ``None``: the head's scores as they are."""
    guard: Guard | None = None
    """Tells queries that the router knows nothing of; ``None``: it is never in doubt."""
    encoder: Encoder | None = None
    """Makes embeddings of texts; ``None``: a served encoder does."""

    def predict(self, x: Floats, tokens: Floats | None = None) -> Prediction:
        """
        Args:
            x: [n, d] float32, unit rows.
            tokens: [n], tokens of the prompts; omitted: 0, for costs that do not depend on them.
        """
        quality = self.head.scores(x)
        if self.calibration is not None:
            quality = self.calibration.applied(quality)
        cost = self.costs.of(x, np.zeros(len(x)) if tokens is None else tokens)
        return Prediction(quality, cost, self.head.spread(x), self.members, self.best)

    def doubtful(self, x: Floats) -> np.ndarray:
        """[n], queries on which its predictions are not to be trusted."""
        return np.zeros(len(x), bool) if self.guard is None else self.guard.doubtful(x)

    def widened(
        self, member: str, x: Floats, quality: Floats, cost: float = float("nan"), length: float = float("nan")
    ) -> Router:
        """The same router with one more member, last, known from few outcomes only; what it knows of others stays.

        The fallback stays as well: a few outcomes are no proof that somebody is better.

        Args:
            x: [k, d], queries that it has answered, k ≥ 0.
            quality: [k], 0 to 1.
            cost: mean cost of its answers, money; NaN: not known, it counts as the mean of the others'.
            length: mean tokens of its answers; NaN: not known.

        Raises:
            BadRequest: the router knows this member already.
            NeedsFit: it is of a kind that takes nobody without a fit.
        """
        if member in self.members:
            raise BadRequest(f"the router knows {member!r} already; it knows: {', '.join(self.members)}")
        told = cost
        if np.isnan(cost):
            asked = x if len(x) else np.zeros((1, x.shape[1]))
            cost = float(self.costs.of(asked, np.zeros(len(asked))).mean())
        try:
            head, costs = self.head.widen(x, quality), self.costs.widen(cost, length)
            calibration = None if self.calibration is None else self.calibration.widen()
        except NeedsFit as error:
            instead = error.instead or f"fit the router again with {member!r} in the table"
            raise NeedsFit(f"{error.message}; {instead}", param="add_member") from error
        if not np.isnan(told):
            head = head.priced(told)
        changed = {"members": (*self.members, member), "head": head, "costs": costs, "calibration": calibration}
        return replace(self, **changed)  # type: ignore[arg-type]

    def place(self, member: str) -> int:
        """
        Raises:
            BadRequest: the router does not know this member.
        """
        if member not in self.members:
            raise BadRequest(f"the router knows no member {member!r}; it knows: {', '.join(self.members)}")
        return self.members.index(member)

    def learn(self, outcome: Outcome) -> None:
        """Take in one outcome; nothing happens where the head does not learn from single ones."""
        if self.head.learns:
            self.head.learn(outcome)

    def prefer(self, preference: Preference) -> None:
        """Take in one preference; nothing happens where the head does not learn from them."""
        if self.head.prefers:
            self.head.prefer(preference)


def keep(folder: Path, method: str, router: Router, manifest: Manifest | None = None) -> None:
    """Save a router as the artifact of a method.

    Args:
        manifest: with its data, settings and metrics filled; the rest is filled here.
    """
    values, tensors = router.packed()
    about = manifest or Manifest(method=method, kind=KIND)
    changes = {
        "method": method,
        "kind": KIND,
        "members": router.members,
        "parts": values,
        "version": version("ray-ensemble"),
    }
    save(folder, about.model_copy(update=changes), tensors)


def kept(folder: Path, method: str | None = None) -> Router:
    """
    Args:
        method: what it must have been fitted for; ``None``: any.

    Raises:
        ConfigurationError: there is no router, or one of another method.
    """
    manifest, tensors = load(folder)
    require_router(manifest, folder, method)
    return unpacked(Artifact(manifest, tensors))


def unpacked(artifact: Artifact) -> Router:
    """
    Raises:
        ConfigurationError: it has a part that is not known here.
    """
    # A part is known once its module is imported, and finding all methods imports all of them.
    methods()
    return Router.unpacked(artifact.manifest.parts, artifact.tensors)


def require_router(manifest: Manifest, folder: Path, method: str | None = None) -> None:
    """
    Raises:
        ConfigurationError: the artifact in the folder holds no router, or one of another method.
    """
    if manifest.kind != KIND:
        raise ConfigurationError(
            f"{folder} holds an artifact of kind {manifest.kind!r}; needed: {KIND!r}", param="path"
        )
    if method is not None and manifest.method != method:
        rule = f"{folder} holds a router of the method {manifest.method}; needed: {method}"
        raise ConfigurationError(rule, param="path")
