"""How a member's weights and tokenizer get from their source into one local folder, and into memory.

``resolve`` turns any source into a folder that ``from_pretrained`` reads; ``load`` reads it. GGUF files are
dequantised once and kept as safetensors in a cache that several processes may use at the same time. Packages are
read as data: their code is never imported. Pickled weights are refused. Knows nothing of engines and members.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from filelock import FileLock
from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import HFValidationError
from tokenizers import Tokenizer
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from deployments.engines.inventing import config_of, invent
from deployments.engines.sources import (
    DType,
    HubSource,
    PackageSource,
    RandomModel,
    RandomSource,
    Source,
    ZooSource,
)
from ensemble import zoo
from ensemble.errors import ConfigurationError

CACHE = Path.home() / ".cache" / "ray-ensemble"

_HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
_PART = re.compile(r"part\D*(\d+)", re.IGNORECASE)


def resolve(source: Source, cache_dir: Path | None = None) -> Path:
    """A local folder with the model's configuration, safetensors and tokenizer.

    >>> resolve(ZooSource(zoo="adder")).name
    'adder'

    Args:
        cache_dir: keeps what was converted or made, and hub downloads. Omitted: ``~/.cache/ray-ensemble``, and the
            hub's own cache for downloads.

    Raises:
        ConfigurationError: nothing usable lies there, or a file's SHA-256 is not the declared one.
    """
    cache = cache_dir or CACHE
    if isinstance(source, ZooSource):
        return _zoo_member(source.zoo)
    if isinstance(source, RandomSource):
        return _random(source.random, cache)
    if isinstance(source, HubSource):
        found = _downloaded(source, cache_dir / "hub" if cache_dir else None)
        return _converted([found], source.sha256, cache) if source.file else _folder(found)
    if isinstance(source, PackageSource):
        return _from_files(_packaged(source), source.sha256, cache)
    return _from_files([source.path.expanduser()], source.sha256, cache)


def load(
    directory: Path, dtype: DType = "auto", device: str = "cpu"
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Model and tokenizer of a resolved folder, ready for inference.

    Args:
        dtype: of the weights in memory; ``auto``: as they are stored.

    Raises:
        ConfigurationError: the folder holds no causal language model in safetensors with a fast tokenizer, or not all
            of its weights.
    """
    tokenizer = load_tokenizer(directory)
    with _readable(directory, "a model"):
        # Never a question on the terminal whether code that comes with the model may run: it may not.
        model, found = AutoModelForCausalLM.from_pretrained(
            directory,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    _require_whole(model, found["missing_keys"], directory)
    return model.to(device).eval(), tokenizer


def load_config(directory: Path) -> Any:
    """The configuration of the text model in a resolved folder.

    Raises:
        ConfigurationError: transformers knows no such model.
    """
    with _readable(directory, "a model"):
        return AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False).get_text_config()


def load_tokenizer(directory: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a resolved folder, which splits texts as its tokenizer.json says where there is one.

    Raises:
        ConfigurationError: there is none, or no fast one.
    """
    with _readable(directory, "a tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
        if not isinstance(tokenizer, PreTrainedTokenizerFast):
            raise ConfigurationError(f"{directory} has no tokenizer.json; only fast tokenizers are supported")
        return _as_written(tokenizer, directory)


def _as_written(tokenizer: PreTrainedTokenizerFast, directory: Path) -> PreTrainedTokenizerFast:
    """The same tokenizer with the rules of its tokenizer.json.

    The library has a class for many architectures that takes the vocabulary from the file and sets up normalisers,
    splits and decoders of its own. A model of such an architecture that was trained with another tokenizer, as
    distilled ones are, would read and write other ids than it has learnt, and nothing would say so.
    """
    file = directory / "tokenizer.json"
    if not file.is_file() or _rules(written := Tokenizer.from_file(str(file))) == _rules(tokenizer.backend_tokenizer):
        return tokenizer
    known = written.get_vocab(with_added_tokens=True)
    names = {name: token for name, token in tokenizer.special_tokens_map.items() if token in known}
    return PreTrainedTokenizerFast.from_pretrained(directory, local_files_only=True, **names)


def _rules(backend: Tokenizer) -> list[bytes | None]:
    parts = (backend.normalizer, backend.pre_tokenizer, backend.model, backend.decoder)
    return [part.__getstate__() if part is not None else None for part in parts]


def _require_whole(model: PreTrainedModel, missing: Iterable[str], source: Path) -> None:
    """Refuse a model of which the library would make a part up."""
    if names := sorted(missing):
        listed = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        raise ConfigurationError(f"{source} lacks {len(names)} weights of a {type(model).__name__}: {listed}")


@contextmanager
def _readable(directory: Path, what: str) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # files of strangers: their libraries raise whatever comes
        raise ConfigurationError(f"cannot load {what} from {directory}: {error}") from error


# Where files lie


def _from_files(files: list[Path], sha256: str | None, cache: Path) -> Path:
    only = files[0]
    if only.is_dir() or only.name == "config.json":
        if sha256:
            raise ConfigurationError(f"sha256 is of a GGUF file; {only} is a model folder", param="sha256")
        return _folder(only if only.is_dir() else only.parent)
    return _converted(files, sha256, cache)


def _folder(directory: Path) -> Path:
    missing = [what for what, there in _needed(directory).items() if not there]
    if missing:
        raise ConfigurationError(f"{directory} is no model folder: it has no {' and no '.join(missing)}")
    return directory


def _needed(directory: Path) -> dict[str, bool]:
    names = [path.name for path in directory.iterdir()]
    tokenizer = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")
    return {
        "config.json": "config.json" in names,
        "*.safetensors (pickled weights are refused)": any(name.endswith(".safetensors") for name in names),
        "tokenizer.json": any(name in names for name in tokenizer),
    }


def _zoo_member(name: str) -> Path:
    try:
        return _folder(zoo.directory(name))
    except (KeyError, FileNotFoundError) as error:
        allowed = ", ".join(zoo.MEMBERS)
        raise ConfigurationError(f"the zoo has no {name!r}; its members are {allowed}", param="zoo") from error


def _downloaded(source: HubSource, cache: Path | None) -> Path:
    try:
        if source.file:
            return Path(hf_hub_download(source.hub, source.file, revision=source.revision, cache_dir=cache))
        found = snapshot_download(source.hub, revision=source.revision, cache_dir=cache, allow_patterns=_HUB_FILES)
        return Path(found)
    except (OSError, HFValidationError) as error:
        what = f"{source.hub}{f', file {source.file}' if source.file else ''}"
        raise ConfigurationError(f"cannot get {what} from the hub or its cache: {error}", param="hub") from error


def _packaged(source: PackageSource) -> list[Path]:
    names = (source.package,) if isinstance(source.package, str) else source.package
    data = [path for name in names for path in _package_data(name)]
    found = [path for path in data if path.match(source.file)]
    if len(found) == 1:
        return found
    if not found:
        has = ", ".join(sorted(path.name for path in data)[:10]) or "no data files"
        raise ConfigurationError(f"no file in {', '.join(names)} matches {source.file!r}; found {has}", param="file")
    return _in_order(found, source.file)


def _package_data(name: str) -> list[Path]:
    """Files of an installed distribution, code and metadata left out."""
    distributions = [name, *metadata.packages_distributions().get(name.replace("-", "_"), ())]
    for distribution in distributions:
        try:
            files = metadata.files(distribution) or []
        except metadata.PackageNotFoundError:
            continue
        data = (file for file in files if file.suffix not in {".py", ".pyc"} and ".dist-info/" not in str(file))
        return [Path(str(file.locate())) for file in data]
    raise ConfigurationError(f"package {name} is not installed; pip install it first", param="package")


def _in_order(files: list[Path], pattern: str) -> list[Path]:
    """Parts by number.

    Raises:
        ConfigurationError: the files are not the parts of one, or parts are missing.
    """
    numbers = {path: int(match[1]) for path in files if (match := _PART.search(path.name))}
    if len(numbers) < len(files):
        listed = ", ".join(sorted(path.name for path in files))
        raise ConfigurationError(
            f"{pattern!r} must match one file or numbered parts; it matches {listed}", param="file"
        )
    parts = sorted(files, key=numbers.__getitem__)
    present = sorted(numbers.values())
    if present != list(range(present[0], present[0] + len(parts))) or present[0] > 1:
        raise ConfigurationError(f"parts of {pattern!r} are missing; found numbers {present}", param="file")
    return parts


# Conversion and cache


def _random(shape: RandomModel, cache: Path) -> Path:
    config = config_of(shape)
    return _cached(
        cache, _key(f"random-{shape.architecture}", shape.model_dump()), lambda f: invent(config, shape.seed, f)
    )


def _converted(parts: list[Path], sha256: str | None, cache: Path) -> Path:
    """The cached conversion of a GGUF file that may come in parts."""
    for part in parts:
        if not part.is_file():
            raise ConfigurationError(f"{part} does not exist; a model is a folder or a GGUF file")
    found = _digest(parts) if sha256 else None
    if found != sha256:
        raise ConfigurationError(f"{parts[0].name} has SHA-256 {found}, not {sha256} as declared", param="sha256")
    with parts[0].open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ConfigurationError(f"{parts[0]} is no GGUF file; a model is a folder or a GGUF file")
    identity = sha256 or [(str(part.resolve()), part.stat().st_size, part.stat().st_mtime_ns) for part in parts]
    return _cached(cache, _key(parts[0].name.split(".")[0], identity), lambda folder: _convert(parts, folder))


def _digest(parts: list[Path]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        with part.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _key(name: str, identity: object) -> str:
    readable = re.sub(r"[^\w-]+", "-", name)[:60]
    return f"{readable}-{hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]}"


def _cached(cache: Path, key: str, make: Callable[[Path], None]) -> Path:
    """``cache / key``, made if it is not there; it appears whole or not at all, and is made by one process only."""
    target = cache / key
    if target.is_dir():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f"{key}.lock"):
        if not target.is_dir():
            with TemporaryDirectory(prefix=f".{key}-", dir=cache) as scratch:
                folder = Path(scratch) / "model"
                folder.mkdir()
                make(folder)
                folder.rename(target)
    return target


def _convert(parts: list[Path], folder: Path) -> None:
    with _joined(parts, folder.parent) as gguf:
        try:
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
            model, found = AutoModelForCausalLM.from_pretrained(
                gguf.parent,
                gguf_file=gguf.name,
                quantization_config=GgufConfig(dequantize=True),
                dtype=torch.bfloat16,
                output_loading_info=True,
            )
        except Exception as error:  # the tokenizer library raises bare Exceptions for files it cannot use
            raise ConfigurationError(f"cannot read the model in {parts[0].name}: {error}") from error
    _require_whole(model, found["missing_keys"], parts[0])
    if hasattr(model.config, "quantization_config"):
        # The weights saved here are plain; a later load must not look for packed ones.
        del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@contextmanager
def _joined(parts: list[Path], scratch: Path) -> Iterator[Path]:
    if len(parts) == 1:
        yield parts[0]
        return
    whole = scratch / "joined.gguf"
    with whole.open("wb") as out:
        for part in parts:
            with part.open("rb") as file:
                shutil.copyfileobj(file, out)
    yield whole
    whole.unlink()
