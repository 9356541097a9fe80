"""The covering tree: all token sequences by which one model may have written a text, and its next byte (2410.09303).

A path is a token sequence whose bytes begin the text; its next token is known to go on with the rest of the text. The
text's probability is the sum over paths of what such next tokens weigh, and the next byte's distribution follows by
splitting these by the byte behind the text. Knows no member: rows are handed in, and asked for by ``unread``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ensemble.during.token.bytes.lexicon import Branch, Lexicon
from ensemble.errors import BadAnswer
from ensemble.member import Floats
from ensemble.vocabulary import common_prefix

STOP = 256
"""Place of the stop in a distribution over bytes."""
OUTCOMES = 257


@dataclass(frozen=True, slots=True)
class Path:
    """One token sequence that begins the text."""

    ids: tuple[int, ...]
    """Behind the trunk."""
    weight: float
    """Its probability, relative to the text's."""
    branch: Branch
    """The tokens that go on with what it lacks of the text; all tokens, if that is nothing."""
    row: Floats | None = None
    """Shape [T]: next-token probabilities in the lexicon's order, where they have been read."""
    stop: float = 0.0
    """Probability of the stop ids together."""

    @property
    def mass(self) -> float:
        """Its part in the text's probability."""
        if self.row is None or not self.branch.depth:
            return self.weight
        return self.weight * float(self.row[self.branch.exact : self.branch.high].sum())


class CoveringTree:
    """One model's paths to a text that grows byte by byte.

    >>> from ensemble.vocabulary import Vocabulary
    >>> tree = CoveringTree(Lexicon(Vocabulary((b"a", b"b", b"ab", b""), stop_ids=frozenset({3}))))
    >>> tree.read(tree.unread[0], np.log([0.3, 0.2, 0.4, 0.1]))
    >>> tree.distribution()[[ord("a"), ord("b"), STOP]].round(3).tolist()
    [0.7, 0.2, 0.1]
    >>> tree.advance(ord("a")); [path.ids for path in tree.unread]
    [(0,)]
    """

    def __init__(self, lexicon: Lexicon, *, keep: float = 0.0, limit: int = 64, window: int = 64) -> None:
        """
        Args:
            keep: the least likely paths are dropped at each byte, as many as have not more than this part of the
                text's probability together.
            limit: paths kept at most, the likeliest.
            window: ids that paths may have behind the trunk; where one gets longer, the likeliest beginning wins.
        """
        self._lexicon, self._keep, self._limit, self._window = lexicon, keep, limit, window
        self.paths: list[Path] = []
        self.dropped = 0.0
        """Parts of the text's probability that were dropped, summed over its bytes."""
        self.restart()

    def restart(self) -> None:
        """Begin anew: the text is spelt by the trunk and nothing else."""
        self.paths = [Path((), 1.0, self._lexicon.root)]

    @property
    def lost(self) -> bool:
        """No path leads to the text."""
        return not self.paths

    @property
    def unread(self) -> list[Path]:
        """Paths whose rows are needed for the next byte."""
        return [path for path in self.paths if path.row is None]

    @property
    def longest(self) -> int:
        """Ids of the longest path, behind the trunk."""
        return max((len(path.ids) for path in self.paths), default=0)

    @property
    def likeliest(self) -> Path:
        return max(self.paths, key=lambda path: path.mass)

    def read(self, path: Path, logprobs: Floats) -> None:
        """Take in a row.

        Args:
            logprobs: shape [V], by id. Control ids are left out and the rest normalised.

        Raises:
            BadAnswer: it has no mass on text and stop ids.
        """
        # In the precision that they come in, which is several times as fast as in float64 and loses nothing they had.
        masses = np.exp(logprobs)
        row = masses.take(self._lexicon.places).astype(np.float64)
        stop = float(masses[self._lexicon.stops].sum(dtype=np.float64))
        whole = float(row.sum()) + stop
        if not whole > 0:
            raise BadAnswer("a distribution has no mass on text tokens and stop ids", reason="empty")
        row /= whole
        at = next(i for i, held in enumerate(self.paths) if held is path)
        self.paths[at] = replace(path, row=row, stop=stop / whole)

    def distribution(self) -> Floats:
        """Probabilities of the next byte, and of the stop at ``STOP``; shape [257], float64. All rows are read."""
        outcomes = np.zeros(OUTCOMES)
        for path in self.paths:
            assert path.row is not None, "rows are read before a byte is asked for"
            outcomes[path.branch.bytes] += path.weight * path.branch.masses(path.row)
            if not path.branch.depth:
                outcomes[STOP] += path.weight * path.stop
        return np.asarray(outcomes / outcomes.sum())

    def advance(self, byte: int) -> None:
        """Let the text go on with a byte."""
        paths = [after for path in self.paths for after in self._after(path, byte)]
        masses = np.array([path.mass for path in paths])
        whole = float(masses.sum())
        likely = [(paths[i], float(masses[i])) for i in kept(masses, self._keep, self._limit).tolist()]
        chosen = _narrowed(likely, self._window)
        left = sum(mass for _, mass in chosen)
        self.dropped += 1.0 - left / whole if chosen else 0.0
        self.paths = [replace(path, weight=path.weight / left) for path, _ in chosen]

    def settle(self) -> tuple[int, ...]:
        """Ids that all paths share: they become the trunk, and paths count from behind them."""
        if not self.paths:
            return ()
        first = self.paths[0].ids
        shared = min(common_prefix(first, path.ids) for path in self.paths)
        if shared:
            self.paths = [replace(path, ids=path.ids[shared:]) for path in self.paths]
        return first[:shared]

    def _after(self, path: Path, byte: int) -> list[Path]:
        assert path.row is not None, "rows are read before the text goes on"
        branch = path.branch.child(byte)
        exact = zip(branch.exact_ids.tolist(), path.row[branch.low : branch.exact].tolist(), strict=True)
        ended = [Path((*path.ids, i), path.weight * p, self._lexicon.root) for i, p in exact]
        return [*ended, replace(path, branch=branch)]


def _narrowed(paths: Sequence[tuple[Path, float]], window: int) -> Sequence[tuple[Path, float]]:
    """Paths and masses without those that begin otherwise than most of the mass, where some have left the window."""
    agreed = 0
    while paths and max(len(path.ids) for path, _ in paths) - agreed > window:
        begun: dict[tuple[int, ...], float] = {}
        for path, mass in paths:
            begun[path.ids[: agreed + 1]] = begun.get(path.ids[: agreed + 1], 0.0) + mass
        best = max(begun, key=lambda ids: begun[ids])
        if len(best) == agreed:
            return [(path, mass) for path, mass in paths if path.ids == best]
        paths = [(path, mass) for path, mass in paths if path.ids[: agreed + 1] == best]
        agreed += 1
    return paths


def kept(masses: Floats, keep: float, limit: int) -> Floats:
    """Places of the masses that are not dropped, ascending.

    Args:
        masses: shape [n].
        keep: part of the whole that may be dropped.
        limit: places kept at most.

    >>> kept(np.array([0.5, 0.0, 0.02, 0.48]), 0.02, 9).tolist(), kept(np.array([0.5, 0.2, 0.3]), 0.0, 2).tolist()
    ([0, 3], [0, 2])
    """
    order = np.argsort(masses, kind="stable")
    dropped = int(np.searchsorted(np.cumsum(masses[order]), keep * masses.sum(), side="right"))
    dropped = max(dropped, len(masses) - limit)
    order = order[dropped:] if dropped < len(masses) else order[len(masses) - 1 :]
    return np.sort(order[masses[order] > 0])
