"""A sentence encoder in this process: a transformer whose last states become one unit vector for each text.

Knows nothing of Ray or of who asks; fits load the same encoder through it that a deployment serves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from transformers import AutoModel

from deployments.engines.fetching import load_tokenizer, resolve
from deployments.engines.settings import EncoderSettings
from ensemble.errors import ConfigurationError
from ensemble.member import Floats

_BLOCK = 2**20
"""Bytes that are read at once for the fingerprint."""


class TextEncoder:
    """A loaded encoder."""

    def __init__(self, settings: EncoderSettings, model: Any, tokenizer: Any, fingerprint: str) -> None:
        self._settings, self._model, self._tokenizer = settings, model, tokenizer
        self.name = settings.name
        self.fingerprint = fingerprint
        """Equal where embeddings are."""
        self.size = int(model.config.get_text_config().hidden_size)
        """Length d of the embeddings."""
        # Some models keep positions for padding, so that the tokenizer's limit is the smaller one.
        limits = (getattr(model.config.get_text_config(), "max_position_embeddings", None), tokenizer.model_max_length)
        self._longest = min(settings.max_tokens, *(limit for limit in limits if limit))

    @classmethod
    def load(cls, settings: EncoderSettings) -> Self:
        """
        Raises:
            ConfigurationError: the source cannot be had, or holds no encoder in safetensors that reads texts by
                itself.
        """
        torch.set_num_threads(settings.threads)
        folder = resolve(settings.source, settings.cache)
        device = settings.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        tokenizer = load_tokenizer(folder)
        try:
            model = AutoModel.from_pretrained(
                folder, dtype="float32", local_files_only=True, use_safetensors=True, trust_remote_code=False
            )
            encoder = cls(settings, model.to(device).eval(), tokenizer, _fingerprint(folder, settings))
            encoder.embed(["a"])
        except Exception as error:  # files of strangers: their libraries raise whatever comes
            raise ConfigurationError(f"cannot load an encoder from {folder}: {error}") from error
        return encoder

    @property
    def identity(self) -> str:
        """What the manifest of a router says that is fitted on its embeddings."""
        return f"{self.name} {self.fingerprint}"

    def embed(self, texts: Sequence[str]) -> Floats:
        """[n, d] float32, unit rows. Texts of like length are read together."""
        found = np.zeros((len(texts), self.size), np.float32)
        ids = [self._ids(text) for text in texts]
        order = sorted(range(len(texts)), key=lambda i: len(ids[i]))
        for start in range(0, len(order), self._settings.batch):
            places = order[start : start + self._settings.batch]
            found[places] = self._pooled([ids[place] for place in places])
        return found

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, truncation=True, max_length=self._longest)["input_ids"]
        # A text of no token has to have a state all the same.
        return ids or [0]

    @torch.inference_mode()
    def _pooled(self, ids: Sequence[list[int]]) -> Floats:
        longest = max(map(len, ids))
        padded = torch.tensor([row + [0] * (longest - len(row)) for row in ids], device=self._model.device)
        there = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids], device=self._model.device)
        states = self._model(input_ids=padded, attention_mask=there).last_hidden_state.float()
        if self._settings.pooling == "cls":
            pooled = states[:, 0]
        else:
            pooled = (states * there[:, :, None]).sum(1) / there.sum(1, keepdim=True)
        unit = torch.nn.functional.normalize(pooled, dim=1)
        return np.asarray(unit.cpu().numpy())


def _fingerprint(folder: Path, settings: EncoderSettings) -> str:
    """Of the weights, the tokenizer, and how states are pooled."""
    found = hashlib.sha256(f"{settings.pooling} {settings.max_tokens}".encode())
    for path in sorted(folder.iterdir()):
        if path.suffix == ".safetensors" or path.name in ("config.json", "tokenizer.json"):
            for block in _blocks(path):
                found.update(block)
    return found.hexdigest()[:16]


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block
