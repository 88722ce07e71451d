"""Bases: models that were trained before, each a folder on this machine, known by the hash of what is read of it.

A base never travels. A scenario names it by its hash; where it lies, each party says for itself:

| Party            | Says where                                                        |
|------------------|-------------------------------------------------------------------|
| a simulation     | `[model] use = "hf:FOLDER"`, from the folder of the scenario's file |
| a deployed silo  | `[bases]` of its `silo.toml`: a folder by the base's hash         |
| a server         | `[bases]` of its `server.toml`, likewise                          |

Read are `config.json`, `tokenizer.json` and every `*.safetensors` of the folder, each once, into memory; the hash is of
these bytes, and a model is built from these bytes alone.

Guarantee: `base_of` returns what has the hash that it was asked for, or raises. So a base that differs by a byte, of
its configuration and its tokenizer too, is none; and nothing of a base is run: no pickle is opened and no code of it is
imported (`fedmodel.kinds.pretrained` builds by classes of the installed `transformers` alone).

| The folder                                                   | Is      |
|--------------------------------------------------------------|---------|
| not there, or not to be read                                 | refused |
| with a pickle in it (`.bin`, `.pt`, `.pth`, `.ckpt`, `.pkl`) | refused |
| with code: a `.py` file, or `auto_map` in `config.json`      | refused |
| without `config.json`, `tokenizer.json` or `*.safetensors`   | refused |
| with a `config.json` that is no JSON object with model_type  | refused |
| quantised by another library (`quantization_config`)         | refused |
| of another hash than the scenario says                       | refused |
| larger than half of the memory that is available             | refused |

Does NOT know what a base was trained on: that no record of a silo is in it is its publisher's word.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from fedmodel.errors import ConfigError
from fedmodel.kinds.tokens import TokenizerConfig
from fedmodel.system.memory import available

CONFIG: Final = "config.json"
TOKENIZER: Final = "tokenizer.json"
_WEIGHTS: Final = ".safetensors"
_PICKLES: Final = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_CODE: Final = (".py", ".pyc", ".so")
_LABEL: Final = b"fedmodel/v1/base"
_MASK_TOKENS: Final = ("[MASK]", "<mask>")
_TIMES: Final = 2  # a base's size, as bytes and as tensors

_places: Final[dict[str, Path]] = {}


@dataclass(frozen=True)
class Base:
    """What was read of a folder.

    Attributes:
        sha256: Of all of it, in hexadecimal.
        config: `config.json`.
        tokenizer: `tokenizer.json`.
        weights: The files of weights, in order of their names.
    """

    sha256: str
    config: Mapping[str, Any]
    tokenizer: bytes = field(repr=False)
    weights: tuple[bytes, ...] = field(repr=False)

    def tensors(self) -> set[str]:
        """Return the names of its tensors, as the files' headers have them.

        Raises:
            ConfigError: When a file is no safetensors.
        """
        try:
            return {name for data in self.weights for name in json.loads(_header(data)) if name != "__metadata__"}
        except (ValueError, RecursionError):
            raise ConfigError(f"the base of SHA-256 {self.sha256[:16]}... has a file that is no safetensors") from None


def read_base(folder: Path) -> Base:
    """Read a base.

    Raises:
        ConfigError: As the table above says, in one line that names the folder.
    """
    try:
        _check_names(folder, sorted(one.name for one in folder.iterdir() if one.is_file()))
        _check_room(folder)
        read = {name: (folder / name).read_bytes() for name in _read_of(folder)}
    except OSError as error:
        raise ConfigError(f"{folder}: the base cannot be read: {error.strerror}") from error
    except ValueError as error:  # a null byte
        raise ConfigError(f"{str(folder)[:80]!r}: is no path of a folder") from error
    digest = hashlib.sha256(_LABEL)
    for name, data in read.items():
        for part in (name.encode(), data):
            digest.update(len(part).to_bytes(8, "big") + part)
    weights = tuple(data for name, data in read.items() if name.endswith(_WEIGHTS))
    return Base(digest.hexdigest(), _config(folder, read[CONFIG]), read[TOKENIZER], weights)


def place(folder: Path) -> Base:
    """Read a base, and know from now on where it lies."""
    base = read_base(folder)
    _places[base.sha256] = folder.absolute()
    return base


def copy_base(folder: Path, to: Path) -> None:
    """Copy what is read of a base, and nothing else that lies there, into a new folder.

    Raises:
        ConfigError: When that cannot be read or written.
    """
    try:
        to.mkdir(parents=True)
        for name in _read_of(folder):
            shutil.copyfile(folder / name, to / name)
    except OSError as error:
        raise ConfigError(f"{to}: the base cannot be copied there from {folder}: {error.strerror}") from error


def lie_at(folders: Mapping[str, str], home: Path) -> None:
    """Know where bases lie by what a party's own file says, and no others; nothing is read.

    Args:
        folders: By hash.
        home: Where relative paths begin.
    """
    _places.clear()
    _places.update({sha256: home / folder for sha256, folder in folders.items()})


def known() -> dict[str, str]:
    """Return the folders of all bases of which this process knows where they lie, by hash."""
    return {sha256: str(folder.absolute()) for sha256, folder in _places.items()}


def folder_of_base(sha256: str) -> Path | None:
    """Return where a base lies, None where that is not known."""
    return _places.get(sha256)


def base_of(sha256: str) -> Base:
    """Return the base of a hash.

    Raises:
        ConfigError: When nobody said where it lies, or what lies there has another hash.
    """
    folder = _places.get(sha256)
    if folder is None:
        raise ConfigError(
            f"the model is built on the base of SHA-256 {sha256[:16]}..., and nobody said where that lies on this"
            ' machine; name its folder: use = "hf:FOLDER" in the scenario, or [bases] in silo.toml or server.toml'
        )
    base = read_base(folder)
    if base.sha256 != sha256:
        raise ConfigError(
            f"{folder}: is the base of SHA-256 {base.sha256[:16]}..., and {sha256[:16]}... is asked for; put the very"
            " same files there, config.json and tokenizer.json too"
        )
    return base


def tokenizer_config(base: Base) -> TokenizerConfig:
    """Return what a scenario declares of texts that are read by a base's own tokenizer.

    Raises:
        ConfigError: When the base does not say how many tokens it knows.
    """
    vocabulary, padding = base.config.get("vocab_size"), base.config.get("pad_token_id")
    if not isinstance(vocabulary, int):
        raise ConfigError(
            f"the base of SHA-256 {base.sha256[:16]}...: its config.json says no vocab_size, so it takes no one text;"
            " take another"
        )
    sha256 = hashlib.sha256(base.tokenizer).hexdigest()
    return TokenizerConfig(sha256=sha256, vocabulary=vocabulary, padding=padding if isinstance(padding, int) else 0)


def mask_token(tokenizer: bytes, sha256: str) -> int:
    """Return the token that stands for a hidden one.

    Args:
        tokenizer: Of a base, as `Base` has it.
        sha256: Of the base.

    Raises:
        ConfigError: When the base's tokenizer has none.
    """
    try:
        added = json.loads(tokenizer)["added_tokens"]
        return next(int(one["id"]) for one in added if one["content"] in _MASK_TOKENS)
    except (ValueError, RecursionError, LookupError, TypeError, StopIteration):
        raise ConfigError(
            f"the base of SHA-256 {sha256[:16]}... has no mask token, {' or '.join(_MASK_TOKENS)}, in its"
            ' tokenizer.json, and task = "masked-lm" hides tokens by it; take a base that was trained so'
        ) from None


def _header(data: bytes) -> bytes:
    """Return the JSON that a safetensors file begins with."""
    return data[8 : 8 + int.from_bytes(data[:8], "little")]


def _read_of(folder: Path) -> list[str]:
    """Return the names of the files that are read, in order."""
    names = sorted(one.name for one in folder.iterdir() if one.is_file())
    return [name for name in names if name in (CONFIG, TOKENIZER) or name.endswith(_WEIGHTS)]


def _check_names(folder: Path, names: list[str]) -> None:
    """Refuse a folder by the names of its files."""
    for suffixes, what, instead in (
        (_PICKLES, "a pickle, which runs code when it is read", "convert it to safetensors, and take it out"),
        (_CODE, "code, which is never run from a base", "take a model of an architecture that transformers has"),
    ):
        found = next((name for name in names if name.lower().endswith(suffixes)), None)
        if found is not None:
            raise ConfigError(f"{folder}: the base has {found}, {what}; {instead}")
    for needed, why in ((CONFIG, "says its architecture"), (TOKENIZER, "says which tokens it knows")):
        if needed not in names:
            raise ConfigError(f"{folder}: the base has no {needed}, which {why}; copy it from where the base is from")
    if not any(name.endswith(_WEIGHTS) for name in names):
        raise ConfigError(f"{folder}: the base has no *.safetensors, and weights are read in no other form")


def _check_room(folder: Path) -> None:
    """Refuse a base that is read and then kept as tensors, where both do not fit in memory."""
    size, free = sum((folder / name).stat().st_size for name in _read_of(folder)), available()
    if _TIMES * size > free:
        raise ConfigError(
            f"{folder}: the base has {size / 1e6:,.0f} MB, and needs {_TIMES} times that to be read; {free / 1e6:,.0f}"
            " MB of memory are available: end other programs, or take a smaller base"
        )


def _config(folder: Path, data: bytes) -> dict[str, Any]:
    """Return a base's configuration, of which nothing names code."""
    path = folder / CONFIG
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise ConfigError(f"{path}: is no JSON") from None
    if not isinstance(found, dict) or not isinstance(found.get("model_type"), str):
        raise ConfigError(f"{path}: names no architecture by model_type; name the folder of a model of transformers")
    if found.get("auto_map"):
        raise ConfigError(f"{path}: names code by auto_map, which is never run from a base; take another base")
    if found.get("quantization_config"):
        raise ConfigError(
            f"{path}: is of quantised weights, which are not read, since no record's gradient through kernels of 4 or 8"
            " bits was held to autograd's here; take the base in float32 or bfloat16"
        )
    return found
