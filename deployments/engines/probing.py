"""Whether a model computes the same through slots, rows and trees as it does by itself.

Models differ in what they make of masks, positions and caches, and one that ignores them raises nothing: its answers
are merely wrong. So every model is tried before it serves.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from deployments.engines.batch import Row
from ensemble.errors import ConfigurationError
from ensemble.member import Floats

_LENGTH = 6
"""Tokens of the text that is tried: one pass reads a part of it, a second one the rest."""
_TOLERANCE = {torch.float32: 2e-4, torch.float64: 2e-4}
_COARSE = 0.25
"""Allowed in half precision, where a pass of another shape is rounded otherwise; what attends wrongly differs by
0.3 to 1.4 (weights of deviation 0.2)."""

Compute = Callable[[Sequence[Row]], Floats]
"""Logits [n, V] of the places that rows want, in their order."""


def probe_ids(model: Any) -> list[int]:
    """Ids that the model has rows for, from the middle of its vocabulary, where no special ones are."""
    known = min(model.get_input_embeddings().weight.shape[0], model.get_output_embeddings().weight.shape[0])
    first = max(0, (known - _LENGTH) // 2)
    return [(first + i) % known for i in range(_LENGTH)]


def check(model: Any, slots: int, compute: Compute) -> None:
    """Compare what the model computes by itself with what it computes in parts.

    Args:
        slots: that there are; with two and more, rows of other lengths are in the second pass.

    Raises:
        ConfigurationError: it is something else, or it cannot be computed so.
    """
    if "position_ids" not in inspect.signature(model.base_model.forward).parameters:
        # What it makes of positions of its own may differ too little to be seen in a short text.
        raise _refused(model, "takes no positions")
    ids = probe_ids(model)
    try:
        with torch.inference_mode():
            alone = model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits[0].float()
        found = _in_parts(ids, slots, compute)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        raise _refused(model, f"fails with {type(error).__name__}") from error
    off = _distance(found, alone.cpu().numpy()[[1, 2, 3, *[_LENGTH - 1] * (slots > 1)]])
    if not off <= _TOLERANCE.get(model.dtype, _COARSE):
        raise _refused(model, f"differs by {off:.2g}")


def _in_parts(ids: Sequence[int], slots: int, compute: Compute) -> Floats:
    """Logits behind the second, third and fourth id, and behind the last one in a slot of its own."""
    first = compute([Row(0, 0, ids[:2], None, [1])])
    # The last id stands beside the third one: a branch that the others must not see.
    tree = Row(0, 2, [ids[2], ids[-1], ids[3]], [-1, -1, 0], [0, 2])
    beside = [Row(1, 0, ids, None, [len(ids) - 1])] if slots > 1 else []
    return np.concatenate([first, compute([tree, *beside])])


def _distance(found: Floats, wanted: Floats) -> float:
    """The largest relative distance of a row from what it should be, whatever constant is added to it."""
    centred = wanted - wanted.mean(-1, keepdims=True)
    off = found - found.mean(-1, keepdims=True) - centred
    return float((np.linalg.norm(off, axis=-1) / np.maximum(np.linalg.norm(centred, axis=-1), 1e-12)).max())


def _refused(model: Any, how: str) -> ConfigurationError:
    return ConfigurationError(
        f"the transformers engine cannot serve {model.config.model_type}: computed in parts, as sessions need it, it "
        f"{how}; allowed: decoder-only models that follow the masks, positions and cache that they are given, or the "
        "engine vllm"
    )
