"""A router as a value: kept and read again, and one more member without a fit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ensemble.before.routing.parts import NeedsFit
from ensemble.before.routing.router import kept
from ensemble.errors import BadRequest, ConfigurationError
from tests.ensemble.before.routing.desks import FirstWord, artifact, router

X = np.eye(3, dtype=np.float32)


def test_one_more_member_changes_nothing_of_the_others() -> None:
    before = router()
    after = before.widened("d", X[1:2], np.array([1.0]), cost=7.0)
    assert after.members == ("a", "b", "c", "d") and after.best == before.best
    told = after.predict(X)
    assert np.array_equal(told.quality[:, :3], before.predict(X).quality)
    assert told.quality[1, 3] == 1.0 and told.cost[:, 3].tolist() == [7.0] * 3
    assert before.members == ("a", "b", "c")


def test_a_member_that_is_known_is_not_added() -> None:
    with pytest.raises(BadRequest, match="knows 'b' already"):
        router().widened("b", X[:1], np.ones(1))


def test_whose_cost_nobody_knows_costs_as_much_as_the_others() -> None:
    for x, quality in ((X[:1], np.ones(1)), (X[:0], np.ones(0))):
        assert router().widened("d", x, quality).predict(X).cost.tolist() == [[1.0, 2.0, 3.0, 2.0]] * 3


def test_a_head_that_takes_nobody_says_so() -> None:
    made = router()
    made.costs = type("Fixed", (type(made.costs),), {"widen": lambda *_: _refused()})(made.costs.means)  # type: ignore[attr-defined]
    with pytest.raises(BadRequest, match="fit the router again with 'd'"):
        made.widened("d", X[:1], np.ones(1))


def _refused() -> None:
    raise NeedsFit("costs of kind fixed take no member without a fit")


def test_kept_and_read_again(tmp_path: Path) -> None:
    made = router()
    read = kept(artifact(tmp_path / "r", made), "knn_router")
    assert np.array_equal(read.predict(X).quality, made.predict(X).quality)
    assert isinstance(read.encoder, FirstWord) and read.members == made.members
    with pytest.raises(ConfigurationError, match="needed: carrot"):
        kept(tmp_path / "r", "carrot")


def test_every_part_is_known_to_who_reads(tmp_path: Path) -> None:
    """A process that has imported nothing else."""
    path = artifact(tmp_path / "r", router(encoder=None))
    code = (
        "from pathlib import Path; from ensemble.before.routing.router import kept; import sys; kept(Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, timeout=60)
