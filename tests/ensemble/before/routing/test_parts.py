"""Parts keep themselves: arrays as tensors, values as JSON, parts within parts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from ensemble.artifacts import Manifest, load, save
from ensemble.before.routing.parts import Part
from ensemble.errors import ConfigurationError


@dataclass
class Inner(Part, kind="test-inner"):
    table: np.ndarray
    label: str = "x"


@dataclass
class Outer(Part, kind="test-outer"):
    weights: np.ndarray
    inner: Inner | None
    names: tuple[str, ...]
    rate: float = 0.5
    other: Part | None = None


def outer() -> Outer:
    inner = Inner(np.arange(6).reshape(2, 3), "y")
    return Outer(np.array([1.5, np.nan]), inner, ("a", "b"), 0.25, Inner(np.zeros(0), ""))


def through(tmp_path: Path, part: Part) -> Part:
    values, tensors = part.packed()
    save(tmp_path / "kept", Manifest(method="test", kind="test", parts=values), tensors)
    manifest, back = load(tmp_path / "kept")
    return Part.unpacked(manifest.parts, back)


def test_a_part_comes_back_whole(tmp_path: Path) -> None:
    back = through(tmp_path, outer())
    assert isinstance(back, Outer) and isinstance(back.inner, Inner) and isinstance(back.other, Inner)
    assert np.array_equal(back.weights, outer().weights, equal_nan=True)
    assert back.inner.table.dtype == np.int64 and back.inner.table.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert (back.inner.label, back.names, back.rate, back.other.table.shape) == ("y", ("a", "b"), 0.25, (0,))


def test_absent_parts_stay_absent(tmp_path: Path) -> None:
    back = through(tmp_path, Outer(np.ones(1), None, ()))
    assert isinstance(back, Outer) and back.inner is None and back.other is None


def test_what_came_back_can_be_written_to(tmp_path: Path) -> None:
    back = through(tmp_path, outer())
    assert isinstance(back, Outer)
    back.weights[0] = 7
    assert back.weights[0] == 7


def test_values_are_json() -> None:
    values, tensors = outer().packed()
    assert json.loads(json.dumps(values)) and set(tensors) == {"weights", "inner.table", "other.table"}


def test_an_unknown_kind_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigurationError, match=r"kind 'nothing'; known here: .*test-inner"):
        Part.unpacked({"kind": "nothing"}, {})


def test_a_part_of_another_class_is_refused() -> None:
    values, tensors = Inner(np.zeros(1)).packed()
    with pytest.raises(ConfigurationError, match="test-inner"):
        Outer.unpacked(values, tensors)


def test_a_part_that_lacks_a_field_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Part.unpacked({"kind": "test-inner"}, {})


def test_two_classes_of_one_kind_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="two parts of routers are of kind test-inner"):

        class Other(Part, kind="test-inner"):
            pass
