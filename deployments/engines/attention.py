"""Which columns of the cache each layer of a model attends to, as the masks that it takes.

Knows a model's configuration and one pass; knows no cache and no session.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from deployments.engines.batch import Batch
from ensemble.errors import ConfigurationError

_KINDS = {"full_attention", "sliding_attention"}


@dataclass(frozen=True, slots=True)
class Attention:
    """How one model attends."""

    kinds: frozenset[str] | None
    """Kinds of layers, where the model takes a mask for each kind; ``None`` where it takes one for all."""
    window: int | None
    """Columns that a sliding layer looks back; ``None`` where no layer slides."""
    added: torch.dtype | None
    """Of masks that are added to scores: 0 where a token may look, the least number elsewhere. ``None``: masks are
    truth values."""

    @classmethod
    def of(cls, model: Any) -> Attention:
        """
        Raises:
            ConfigurationError: some layers keep a state that is no key-value cache, or there is an encoder.
        """
        config = model.config.get_text_config()
        kinds = frozenset(getattr(config, "layer_types", None) or ())
        if kinds - _KINDS or getattr(config, "is_encoder_decoder", False):
            what = ", ".join(sorted(kinds - _KINDS)) or "an encoder"
            raise ConfigurationError(
                f"{config.model_type} has {what}; the transformers engine serves decoder-only attention"
            )
        # Only PyTorch's own kernel takes truth values. What is written out in a model's code adds its mask, for which
        # true is 1, which hides nothing.
        added = None if getattr(config, "_attn_implementation", None) == "sdpa" else model.dtype
        window = getattr(config, "sliding_window", None)
        if not kinds:
            return cls(None, window if getattr(config, "use_sliding_window", True) else None, added)
        return cls(kinds, window, added) if "sliding_attention" in kinds else cls(None, None, added)

    def masks(self, batch: Batch, tensor: Callable[[Any], torch.Tensor]) -> Any:
        """What the model takes for a pass: a mask [B, 1, T, width], or one for each kind of layer.

        Args:
            tensor: puts an array on the model's device.
        """
        full = tensor(batch.visible)[:, None]
        if self.window is None or batch.distances is None:
            return self._form(full) if self.kinds is None else dict.fromkeys(self.kinds, self._form(full))
        near = self._form(full & tensor(batch.distances < self.window)[:, None])
        if self.kinds is None:
            return near
        return {kind: near if kind == "sliding_attention" else self._form(full) for kind in self.kinds}

    def _form(self, visible: torch.Tensor) -> torch.Tensor:
        if self.added is None:
            return visible
        hidden = torch.finfo(self.added).min
        return torch.zeros(visible.shape, dtype=self.added, device=visible.device).masked_fill(~visible, hidden)
