"""One forward pass of a transformers model over rows of many sessions: arrays in, log-probabilities out.

Knows models and devices; knows no session, no question and no event loop.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from deployments.engines.attention import Attention
from deployments.engines.batch import Batch, Row, assemble
from deployments.engines.heads import Heads, Read
from deployments.engines.probing import check, probe_ids
from deployments.engines.slots import SlotCache
from deployments.engines.work import Logits
from ensemble.member import Floats


class Abandoned(Exception):
    """The pass was given up. What its rows were to write into the cache counts as not written."""


class Broken(Exception):
    """The device has failed, and computes nothing more in this process."""


class Forward:
    """A loaded model with its cache."""

    def __init__(self, model: Any, slots: int, heads: Heads | None = None, longest: int | None = None) -> None:
        """
        Args:
            model: a decoder-only ``PreTrainedModel`` in evaluation mode.
            slots: sequences held in the cache at once.
            heads: resident at the model.
            longest: tokens of a sequence at most; ``None``: not known.

        Raises:
            ConfigurationError: the model keeps a state that is no key-value cache, or does not compute in parts what it
                computes at once.
        """
        self._model = model.eval()
        self._config = model.config.get_text_config()
        self._device = model.device
        self.heads = (heads or Heads()).to(self._device)
        self._attention = Attention.of(model)
        self._keeps = "logits_to_keep" in inspect.signature(model.forward).parameters
        self.cache = SlotCache(slots, longest)
        self._abandoned = False
        self._short_head = False
        # What models list as hidden states differs in its shape and in what is done to it before the head.
        model.get_output_embeddings().register_forward_pre_hook(self._feeds)
        check(model, slots, self._tried)
        self._short_head = self._head_alone_is_enough()
        for layer in _layers_of(model, self._config.num_hidden_layers):
            layer.register_forward_pre_hook(self._go_on)

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

    def _feeds(self, _: Any, given: tuple[torch.Tensor, ...]) -> None:
        self._fed = given[0]

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

        Raises:
            Abandoned: it was given up.
            Broken: no pass will be computed any more.
        """
        try:
            return self._computed(rows, topk, hidden, reads)
        except torch.AcceleratorError as error:
            raise Broken(f"the device failed: {error}") from error

    def _computed(self, rows: Sequence[Row], topk: int, hidden: bool, reads: Sequence[Read | None]) -> list[Logits]:
        batch = self._assembled(rows)
        ends = np.cumsum([len(row.wanted) for row in rows])
        parts = [slice(end - len(row.wanted), end) for end, row in zip(ends, rows, strict=True)]
        with torch.inference_mode():
            logits, states = self._logits(batch)
            logprobs = torch.log_softmax(logits.float(), dim=-1)
            top = logprobs.topk(min(max(topk, 1), logprobs.shape[-1]), dim=-1).indices.to(torch.int32)
            outcomes = self._outcomes(reads, parts, logits, logprobs, states)
            vectors = states.float() if hidden else logprobs[:, :0]
            top_ids, vectors, *tables = _fetched([top, vectors, *(logprobs[part] for part in parts)])
        return [
            Logits(table, top_ids[part], vectors[part] if hidden else None, read)
            for table, part, read in zip(tables, parts, outcomes, strict=True)
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
        # A chunk of prefill wants no logits; of all its tokens they would take as long as many layers.
        columns = np.unique(batch.wanted[:, 1]) if self._keeps else np.arange(batch.ids.shape[1])
        kept = {"logits_to_keep": self._tensor(columns)} if self._keeps else {}
        logits = self._model(**inputs, **kept).logits
        places = wanted[:, 0], self._tensor(np.searchsorted(columns, batch.wanted[:, 1]))
        return logits[places], self._fed[places]

    def _inputs(self, batch: Batch) -> dict[str, Any]:
        self.cache.place(self._tensor(batch.slots), self._tensor(batch.columns), batch.rows.tolist(), batch.width)
        return {
            "input_ids": self._tensor(batch.ids),
            "position_ids": self._tensor(batch.positions),
            "attention_mask": self._attention.masks(batch, self._tensor),
            "past_key_values": self.cache,
            "use_cache": True,
        }

    def _assembled(self, rows: Sequence[Row]) -> Batch:
        return assemble(rows, self.cache.slots, distances=self._attention.window is not None)

    def _tensor(self, array: Any) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)

    def _tried(self, rows: Sequence[Row]) -> Floats:
        """Logits of the places that rows want, while the model is being tried."""
        with torch.inference_mode():
            return np.asarray(self._logits(self._assembled(rows))[0].float().cpu().numpy())

    def _head_alone_is_enough(self) -> bool:
        """Whether logits are the head applied to the base model's output; some models scale or cap them after it."""
        # All places are wanted, so that both heads multiply matrices of one shape, and round alike.
        probe = Row(0, 0, (ids := probe_ids(self._model)), None, range(len(ids)))
        whole = self._tried([probe])
        self._short_head = True
        try:
            short = self._tried([probe])
        except (AttributeError, RuntimeError, TypeError, ValueError):
            return False  # a base model of another kind: its outputs are found through the whole one
        finally:
            self._short_head = False
        return bool(np.allclose(whole, short, atol=1e-4, rtol=1e-4))


def _fetched(tensors: Sequence[torch.Tensor]) -> list[Any]:
    """Arrays of tensors of one device; from a GPU each in a block of its own, which what is kept of it keeps alive."""
    device = tensors[0].device
    if device.type == "cpu":
        return [tensor.numpy() for tensor in tensors]
    # Through pinned memory, several times as fast as without, and waited for once.
    blocks = [torch.empty(t.shape, dtype=t.dtype, pin_memory=True) for t in tensors]
    for block, tensor in zip(blocks, tensors, strict=True):
        block.copy_(tensor, non_blocking=True)
    torch.cuda.current_stream(device).synchronize()
    return [block.numpy() for block in blocks]


def _layers_of(model: Any, count: int) -> Sequence[torch.nn.Module]:
    """The layers that a pass goes through one after another; none where the model has another shape."""
    lists = (m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == count)
    return list(next(lists, ()))
