"""Cost heads: what an answer of each member to a query will cost, in money."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from ensemble.before.fitting.training import Training
from ensemble.before.routing.parts import NeedsFit, Part
from ensemble.outcomes.dense import Floats, mean_observed

_ROWS = 4096
"""Rows that heads are compared on at most."""
_PENALTY = 1.0
"""Ridge of the lengths' regression; rows are of unit length."""


class Costs(Part):
    """Predicted cost of one answer."""

    @abstractmethod
    def of(self, x: Floats, tokens: Floats) -> Floats:
        """[n, M], money.

        Args:
            x: [n, d], embeddings of the queries.
            tokens: [n], tokens that a prompt holds, counted or estimated.
        """

    def widen(self, cost: float, length: float = float("nan")) -> Costs:
        """The same with one more member, last, of whom a mean cost and a mean length of answers are known (NaN: not).

        Raises:
            NeedsFit: this kind takes nobody without a fit.
        """
        raise NeedsFit(f"costs of kind {self.kind} take no member without a fit")


@dataclass
class MeanCosts(Costs, kind="mean-costs"):
    """Each member's mean."""

    means: Floats
    """[M], money; 0 where nothing is known."""

    @classmethod
    def fit(cls, training: Training) -> MeanCosts:
        return cls(mean_observed(training.table.cost, empty=0.0))

    def of(self, x: Floats, tokens: Floats) -> Floats:
        return np.broadcast_to(self.means, (len(x), len(self.means)))

    def widen(self, cost: float, length: float = float("nan")) -> MeanCosts:
        return MeanCosts(np.append(self.means, np.nan_to_num(cost)))


@dataclass
class TokenCosts(Costs, kind="token-costs"):
    """Tokens read × price + tokens that will be written × price; the latter by a ridge regression of ln(1 + tokens).

    A regression of plain counts would follow the longest answers alone.
    """

    weights: Floats
    """[d + 1, M], of the log of the tokens written; the last row is the constant."""
    prices: Floats
    """[M, 2], money per token read and written."""
    most: Floats
    """[M], longest answers seen: no prediction is above."""

    @classmethod
    def fit(cls, training: Training, penalty: float = _PENALTY) -> TokenCosts:
        table = training.table
        columns = [_lengths(training.x, table.output_tokens[:, m], penalty) for m in range(len(table.members))]
        most = np.nan_to_num(np.nanmax(np.where(np.isnan(table.output_tokens), 0, table.output_tokens), axis=0))
        return cls(np.stack(columns, axis=1), np.nan_to_num(table.prices), most)

    def lengths(self, x: Floats) -> Floats:
        """[n, M], tokens that answers will have."""
        lengths: Floats = np.clip(np.expm1(np.clip(x @ self.weights[:-1] + self.weights[-1], 0, 30)), 0, self.most)
        return lengths

    def of(self, x: Floats, tokens: Floats) -> Floats:
        return tokens[:, None] * self.prices[:, 0] + self.lengths(x) * self.prices[:, 1]

    def widen(self, cost: float, length: float = float("nan")) -> TokenCosts:
        """The new member writes one token at the mean cost, whatever is asked: no length of its answers is known."""
        one = np.zeros((len(self.weights), 1))
        one[-1] = np.log1p(1.0)
        price = np.array([[0.0, np.nan_to_num(cost)]])
        return TokenCosts(np.hstack([self.weights, one]), np.vstack([self.prices, price]), np.append(self.most, 1.0))


def _lengths(x: Floats, tokens: Floats, penalty: float) -> Floats:
    """[d + 1] of one member; zeros where no length is known."""
    seen = ~np.isnan(tokens)
    if not seen.any():
        return np.zeros(x.shape[1] + 1)
    rows, target = x[seen].astype(np.float64), np.log1p(tokens[seen].astype(np.float64))
    middle, mean = rows.mean(axis=0), target.mean()
    centred = rows - middle
    solved = np.linalg.solve(centred.T @ centred + penalty * np.eye(x.shape[1]), centred.T @ (target - mean))
    return np.append(solved, mean - middle @ solved)


def known(training: Training) -> Costs:
    """The best that the table allows: by tokens where lengths and prices are known of every member, else means.

    Where the table tells costs as well, means stand unless tokens come closer: prices of the answers alone, where the
    table does not tell how long prompts were, put members in a wrong order.
    """
    table, means = training.table, MeanCosts.fit(training)
    lengths = (~np.isnan(table.output_tokens)).any(axis=0).all()
    if not lengths or np.isnan(table.prices).any():
        return means
    tokens = TokenCosts.fit(training)
    if np.isnan(table.cost).all():
        return tokens
    return min(means, tokens, key=lambda costs: _error(costs, training))


def _error(costs: Costs, training: Training) -> float:
    """Mean distance to the costs of the first rows, each member's as a part of its mean."""
    table, x = training.table.rows(np.arange(min(len(training.x), _ROWS))), training.x[:_ROWS]
    read = np.nan_to_num(mean_observed(table.input_tokens.T))
    apart = np.abs(costs.of(x, read) - table.cost)
    means = mean_observed(table.cost)
    return float(np.nanmean(apart / np.where(means > 0, means, 1)))
