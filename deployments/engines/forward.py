"""One forward pass of a transformers model over rows of many sessions: arrays in, log-probabilities out.

Knows models and devices; knows no session, no question and no event loop.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from deployments.engines.batch import Batch, Row, assemble
from deployments.engines.heads import Heads, Read
from deployments.engines.slots import SlotCache
from deployments.engines.work import Logits
from ensemble.errors import ConfigurationError
from ensemble.member import Floats

log = logging.getLogger(__name__)

_ATTENTION = {"full_attention", "sliding_attention"}


class Abandoned(Exception):
    """The pass was given up. What its rows were to write into the cache counts as not written."""


class Forward:
    """A loaded model with its cache."""

    def __init__(self, model: Any, slots: int, heads: Heads | None = None) -> None:
        """
        Args:
            model: a decoder-only ``PreTrainedModel`` in evaluation mode.
            slots: sequences held in the cache at once.
            heads: resident at the model.

        Raises:
            ConfigurationError: the model keeps a state that is no key-value cache.
        """
        self._model = model.eval()
        self._config = model.config.get_text_config()
        self._device = model.device
        self.heads = (heads or Heads()).to(self._device)
        self._layers, self._window = _attention_of(self._config)
        self.cache = SlotCache(slots)
        self._abandoned = False
        for layer in _layers_of(model, self._config.num_hidden_layers):
            layer.register_forward_pre_hook(self._go_on)
        self._short_head = False
        self._short_head = self._head_alone_is_enough()

    @property
    def on_gpu(self) -> bool:
        return bool(self._device.type != "cpu")

    def resume(self) -> None:
        """Before a pass: what was said of the one before does not concern it."""
        self._abandoned = False

    def abandon(self) -> None:
        """Let the pass under way end at its next layer; it raises ``Abandoned``. From any thread."""
        self._abandoned = True

    def _go_on(self, *_: Any) -> None:
        if self._abandoned:
            raise Abandoned

    @property
    def width(self) -> int:
        """Width of the logits."""
        return int(self._model.get_output_embeddings().weight.shape[0])

    @property
    def state_width(self) -> int:
        """Width of the hidden states."""
        return int(self._config.hidden_size)

    def __call__(self, rows: Sequence[Row], topk: int, hidden: bool, reads: Sequence[Read | None] = ()) -> list[Logits]:
        """Compute rows (in order of slot); returns what each row wanted.

        Args:
            reads: for each row what a head reads at the first place that is wanted; empty: nothing.
        """
        batch = assemble(rows, self.cache.slots, distances=self._window is not None)
        ends = np.cumsum([len(row.wanted) for row in rows])
        parts = [slice(end - len(row.wanted), end) for end, row in zip(ends, rows, strict=True)]
        with torch.inference_mode():
            logits, states = self._logits(batch)
            logprobs = torch.log_softmax(logits.float(), dim=-1)
            top = logprobs.topk(min(max(topk, 1), logprobs.shape[-1]), dim=-1).indices if len(logprobs) else logprobs
            outcomes = self._outcomes(reads, parts, logits, logprobs, states)
        table, top_ids = logprobs.cpu().numpy(), top.cpu().numpy().astype(np.int32)
        vectors = states.float().cpu().numpy() if hidden else None
        return [
            Logits(table[p], top_ids[p], vectors[p] if vectors is not None else None, o)
            for p, o in zip(parts, outcomes, strict=True)
        ]

    def _outcomes(
        self,
        reads: Sequence[Read | None],
        parts: Sequence[slice],
        logits: torch.Tensor,
        logprobs: torch.Tensor,
        states: torch.Tensor,
    ) -> list[Floats | None]:
        found: list[Floats | None] = [None] * len(parts)
        # A prefill that is not yet through wants nothing.
        read = [i for i, part in enumerate(parts) if reads and reads[i] is not None and part.stop > part.start]
        if read:
            places = [parts[i].start for i in read]
            told = self.heads([reads[i] for i in read], logits[places], logprobs[places], states[places])
            for i, outcomes in zip(read, told, strict=True):
                found[i] = outcomes
        return found

    def _logits(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits [N, width] and last hidden states [N, size] of the wanted places."""
        inputs = self._inputs(batch)
        wanted = self._tensor(batch.wanted)
        if self._short_head:
            states = self._model.base_model(**inputs).last_hidden_state[wanted[:, 0], wanted[:, 1]]
            return self._model.get_output_embeddings()(states), states
        outputs = self._model(**inputs, output_hidden_states=True)
        places = wanted[:, 0], wanted[:, 1]
        return outputs.logits[places], outputs.hidden_states[-1][places]

    def _inputs(self, batch: Batch) -> dict[str, Any]:
        self.cache.place(self._tensor(batch.slots), self._tensor(batch.columns), batch.rows.tolist(), batch.width)
        return {
            "input_ids": self._tensor(batch.ids),
            "position_ids": self._tensor(batch.positions),
            "attention_mask": self._mask(batch),
            "past_key_values": self.cache,
            "use_cache": True,
        }

    def _mask(self, batch: Batch) -> Any:
        masks = {"full_attention": self._tensor(batch.visible)[:, None]}
        if batch.distances is not None and self._window is not None:
            near = self._tensor(batch.distances < self._window)[:, None]
            masks["sliding_attention"] = masks["full_attention"] & near
        if self._layers is None:
            return masks.get("sliding_attention", masks["full_attention"])
        return {kind: masks[kind] for kind in self._layers}

    def _tensor(self, array: Any) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)

    def _head_alone_is_enough(self) -> bool:
        """Whether logits are the head applied to the base model's output; some models scale or cap them after it."""
        probe = Row(0, 0, [0, 1], None, [0, 1])
        with torch.inference_mode():
            batch = assemble([probe], self.cache.slots, distances=self._window is not None)
            whole = self._logits(batch)[0]
            self._short_head = True
            short = self._logits(batch)[0]
        self._short_head = False
        return bool(torch.allclose(whole.float(), short.float(), atol=1e-4, rtol=1e-4))


def _layers_of(model: Any, count: int) -> Sequence[torch.nn.Module]:
    """The layers that a pass goes through one after another; none where the model has another shape."""
    lists = (m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == count)
    return list(next(lists, ()))


def _attention_of(config: Any) -> tuple[set[str] | None, int | None]:
    """Kinds of layers, where the model takes a mask for each kind, and the sliding window, if there is one."""
    kinds = set(getattr(config, "layer_types", None) or ())
    foreign = kinds - _ATTENTION
    if foreign or getattr(config, "is_encoder_decoder", False):
        what = ", ".join(sorted(foreign)) or "an encoder"
        raise ConfigurationError(
            f"{config.model_type} has {what}; the transformers engine serves decoder-only attention"
        )
    window = getattr(config, "sliding_window", None)
    if kinds:
        return (kinds, window) if "sliding_attention" in kinds else (None, None)
    return None, window if getattr(config, "use_sliding_window", True) else None
