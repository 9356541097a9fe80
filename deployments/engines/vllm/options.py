"""Which of vLLM's engine arguments the configuration may hold, checked without importing vLLM.

Where vLLM is installed, names and plain types are read from its source; elsewhere only what is ours is refused. vLLM
itself checks the rest when the model starts.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ensemble.errors import ConfigurationError

_OURS = {
    "model": "source",
    "tokenizer": "source",
    "load_format": "source",
    "revision": "source",
    "hf_config_path": "source",
    "dtype": "dtype",
    "max_model_len": "context_length",
    "max_num_seqs": "sessions",
    "max_num_active_seqs": "sessions",
    "tensor_parallel_size": "tensor_parallel",
    "pipeline_parallel_size": "pipeline_parallel",
    "data_parallel_size": "replicas",
    "enable_lora": "adapters",
    "max_loras": "adapters",
    "max_lora_rank": "adapters",
}
"""Arguments that follow from keys of the model, and those keys."""

_FIXED = {
    "enable_prefix_caching": "it is always on, as sessions are opened anew over it",
    "logprobs_mode": "it is always raw_logprobs, which is what methods combine",
    "max_logprobs": "there is no limit, as methods may ask for any number",
    "distributed_executor_backend": "it follows from pipeline_parallel",
    "generation_config": "requests say how they are sampled",
    "skip_tokenizer_init": "texts never go through vLLM",
    "trust_remote_code": "code that comes with a model is never run",
    "runner": "members generate",
    "convert": "members generate",
    "served_model_name": "a model is served under its name in the configuration",
    "enable_log_requests": "the service logs",
    "disable_log_stats": "the service counts",
}
"""Arguments that are not the configuration's to choose, and why."""

_PLAIN: dict[str, type] = {"int": int, "float": float, "str": str, "bool": bool, "None": type(None)}


def check(options: Mapping[str, Any]) -> None:
    """Refuse what vLLM does not know, and what is set elsewhere.

    >>> check({"max_num_seqs": 4})
    Traceback (most recent call last):
    ensemble.errors.ConfigurationError: engine_options.max_num_seqs is set with the model's own key sessions

    Raises:
        ConfigurationError: naming the argument and what is allowed.
    """
    for name, value in options.items():
        if name in _OURS:
            raise _wrong(name, f"is set with the model's own key {_OURS[name]}")
        if name in _FIXED:
            raise _wrong(name, f"cannot be set: {_FIXED[name]}")
        if known := arguments():
            _check_one(name, value, known)


def _check_one(name: str, value: Any, known: Mapping[str, tuple[type, ...] | None]) -> None:
    if name not in known:
        close = get_close_matches(name, known, n=1)
        hint = f", did you mean {close[0]!r}?" if close else ""
        raise _wrong(name, f"is no engine argument of vLLM{hint}; allowed: the fields of its AsyncEngineArgs")
    types = known[name]
    if types is not None and not _fits(value, types):
        allowed = " or ".join("null" if t is type(None) else t.__name__ for t in types)
        raise _wrong(name, f"is {value!r}; allowed: {allowed}")


def _fits(value: Any, types: tuple[type, ...]) -> bool:
    if isinstance(value, bool):
        return bool in types
    return isinstance(value, (*types, *([int] if float in types else [])))


def _wrong(name: str, rule: str) -> ConfigurationError:
    return ConfigurationError(f"engine_options.{name} {rule}", param=f"engine_options.{name}")


@cache
def arguments() -> dict[str, tuple[type, ...] | None]:
    """vLLM's engine arguments with their types, ``None`` where these are not plain; empty where it is not installed."""
    spec = find_spec("vllm")
    if spec is None or spec.origin is None:
        return {}
    # Importing vLLM takes seconds and sets up devices, which is nothing for a check of a file.
    source = Path(spec.origin).with_name("engine").joinpath("arg_utils.py").read_text(encoding="utf-8")
    classes = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    fields = [field for node in classes if node.name in ("EngineArgs", "AsyncEngineArgs") for field in node.body]
    return {
        field.target.id: _types(field.annotation)
        for field in fields
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and field.target.id[0] != "_"
    }


def _types(annotation: ast.expr) -> tuple[type, ...] | None:
    names = [part.strip() for part in ast.unparse(annotation).split("|")]
    return tuple(_PLAIN[name] for name in names) if all(name in _PLAIN for name in names) else None
