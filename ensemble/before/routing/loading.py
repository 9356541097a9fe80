"""From a folder to a router that can be asked: read whole, and refused where it does not fit who is to be served.

Knows nothing of requests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from ensemble.artifacts import Artifact, Manifest, digest, load, manifest_of, stamp
from ensemble.before.encoders.served import Encoders, ServedEncoder
from ensemble.before.policies import Prediction
from ensemble.before.routing.desk import Loaded
from ensemble.before.routing.router import Router, require_router, unpacked
from ensemble.errors import BadRequest, ConfigurationError, EnsembleError

_TRIES = 3
"""Times that an artifact is read which changes while it is read."""
FEEDBACK = "feedback"
"""Among an artifact's settings: number of the last piece of feedback that it was fitted on."""

Fits = Callable[[Router, Prediction], None]
"""Raises ``ConfigurationError`` where a router does not fit the members or the options; given a prediction for one
question."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a router comes from, and what it has to fit."""

    path: Path
    method: str
    encoders: Encoders
    reads: bool
    """Whether the method reads embeddings."""
    fits: Fits

    def load(self) -> Loaded:
        """
        Raises:
            ConfigurationError: there is no router, or it does not fit.
        """
        for _ in range(_TRIES):
            before = digest(self.path)
            artifact = load(self.path)
            if digest(self.path) == before:
                break
        else:
            raise ConfigurationError(f"{self.path} changes while it is read", param="path")
        manifest = artifact.manifest
        require_router(manifest, self.path, self.method)
        try:
            return self._made(artifact, before)
        except EnsembleError:
            raise
        except Exception as error:
            # Whatever stands in a manifest that somebody has changed: it is the artifact that is wrong.
            rule = f"the router of {self.path} cannot be read: {type(error).__name__}: {error}"
            raise ConfigurationError(rule, param="path") from error

    def _made(self, artifact: Artifact, digest: str) -> Loaded:
        router = unpacked(artifact)
        since = int(artifact.manifest.settings.get(FEEDBACK, 0))
        loaded = Loaded(router, digest, self._encoder(router, artifact.manifest), since)
        self._tried(loaded)
        return loaded

    def signature(self) -> object:
        """Changes whenever the artifact is replaced; ``None`` while there is none."""
        return stamp(self.path)

    def _encoder(self, router: Router, manifest: Manifest) -> ServedEncoder | None:
        if router.encoder is not None and self.encoders.chosen is not None:
            rule = f"the router has an encoder of its own and does not read {self.encoders.chosen}; leave encoder out"
            raise ConfigurationError(rule, param="encoder")
        if router.encoder is not None or not self.reads or not router.head.reads:
            return None
        return self.encoders.reading(manifest.encoder)

    def _tried(self, loaded: Loaded) -> None:
        """See to it that it predicts, and that what it predicts can be decided by."""
        try:
            x = np.zeros((1, _size(loaded)), np.float32)
            prediction, _ = loaded.router.predict(x, np.ones(1)), loaded.router.doubtful(x)
        except (ValueError, IndexError) as error:
            rule = f"the router of {self.path} reads embeddings of another length than {_size(loaded)}"
            raise ConfigurationError(f"{rule}: {error}", param="encoder") from error
        if reason := prediction.unusable:
            raise ConfigurationError(f"the router of {self.path} predicts {reason}", param="path")
        try:
            self.fits(loaded.router, prediction)
        except BadRequest as error:
            raise ConfigurationError(error.message, param=error.param) from error


def _size(loaded: Loaded) -> int:
    encoder = loaded.encoder or loaded.router.encoder
    return encoder.size if encoder is not None else 1


def fitted_to(path: Path, method: str) -> Sequence[str] | None:
    """Whom the router of an artifact chooses from; ``None`` where there is no such folder on this machine.

    Raises:
        ConfigurationError: the folder holds no router of this method.
    """
    try:
        changed = (path / "manifest.json").stat().st_mtime_ns
    except OSError:
        if not path.exists():
            return None
        changed = 0
    manifest = _manifest(path, changed)
    require_router(manifest, path, method)
    return manifest.members


@lru_cache(maxsize=64)
def _manifest(path: Path, changed: int) -> Manifest:
    return manifest_of(path)
