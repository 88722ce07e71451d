"""The file that a run begins from: read once, never executed, and named by what is in it.

Guarantee: `read_start` returns the bytes of a whole safetensors file, whose hash is the scenario's where the scenario
says one, or raises; so what is put into a model is what was hashed, whatever happens to the file meanwhile. Nothing of
the file is run: a pickle is refused, however it is called. `resolved` takes no file for public that says of itself, or
lies where it shows, that a run of ours made it.

| The file                                                              | Is                                       |
|-----------------------------------------------------------------------|------------------------------------------|
| a folder                                                              | its `model.safetensors`, or `.age`       |
| not there, not readable, no plain file, larger than `MOST_BYTES`      | refused                                  |
| sealed in the age format                                              | opened by `identity`; refused without    |
| a pickle (`.pt`, `.pth`, `.bin`, `.ckpt`), or of any other kind       | refused                                  |
| cut short, with bytes behind its end, or a header that is none        | refused                                  |
| of another hash than the scenario says                                | refused                                  |
| called public, with metadata of ours, or the model of a run's folder  | refused                                  |
| not called anything, and of no run                                    | refused: its author has to say           |

Does NOT know what a file was trained on. "public" is its author's word, and metadata is the word of whoever wrote the
file: both are told as such. A file whose metadata was taken away looks like any other.
"""

from __future__ import annotations

import io
import json
import math
import os
import stat
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from fedmodel.config import Scenario, StartConfig
from fedmodel.errors import ConfigError, CryptoError
from fedmodel.kinds.bases import base_of
from fedmodel.kinds.columns import text_column
from fedmodel.kinds.models.hf import HfConfig
from fedmodel.kinds.sources.table import TableConfig
from fedmodel.kinds.texts import Texts

MODEL: Final = "model.safetensors"
START: Final = "start.safetensors"
"""Its copy in a run's folder: what the run began from, and what a resolved scenario beside it names."""
MOST_BYTES: Final = 4_200_000_000  # the largest model that fits into one message, in doubles
_ABOUT: Final = "fedmodel"
_SEALED: Final = (b"age-encryption.org/v1", b"-----BEGIN AGE ENCRYPTED FILE-----")
_PICKLES: Final = (b"PK\x03\x04", *(bytes((0x80, protocol)) for protocol in range(1, 6)))
_OF_PICKLES: Final = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")
_SIZE: Final = 8  # of the header's length, little-endian
_MOST_HEADER: Final = 100_000_000  # as safetensors has it


def _check_tokens(scenario: Scenario) -> None:
    """Refuse texts whose tokens are numbered otherwise than those that the base was trained on."""
    data = scenario.data
    said = data.tokenizer if isinstance(data, Texts) else None
    if isinstance(data, TableConfig) and (column := text_column(data.columns)) is not None:
        said = column.tokenizer
    if said is None or not isinstance(scenario.model, HfConfig) or scenario.model.sha256 is None:
        return
    own = sha256(base_of(scenario.model.sha256).tokenizer).hexdigest()
    if said.sha256 != own:
        raise ConfigError(
            f"data: its tokenizer has SHA-256 {said.sha256[:16]}..., and tokenizer.json of the base {own[:16]}...:"
            " it would be given other tokens than it was trained on; name the base's"
        )


def resolved(scenario: Scenario) -> Scenario:
    """Return a scenario that says by hash on which base it is built, which file it begins from, and whether a run's.

    Raises:
        ConfigError: When the file cannot be read or taken, as the table above says; or a base cannot, as
            `fedmodel.kinds.bases` says.
    """
    if isinstance(scenario.model, HfConfig):
        scenario = scenario.model_copy(update={"model": scenario.model.settled()})
        _check_tokens(scenario)
    start = scenario.start
    if start is None:
        return scenario
    data = read_start(start)
    told = about(data)
    of_run = told is not None or _is_a_runs(file_of(start))
    if start.trained_on == "public" and of_run:
        raise ConfigError(
            f'{start.file}: is the model of a run ({_named(told)}), and model.init says trained_on = "public": what'
            ' that run spent counts on; say trained_on = "run"'
        )
    if not of_run and start.trained_on != "public":
        raise ConfigError(
            f"{start.file}: nothing shows that it is of a run of fedmodel, and nobody said what it was trained on; if"
            f' no private record is in it, say so: model.init = {{ file = "{start.file}", trained_on = "public" }}'
        )
    found = {"sha256": sha256(data).hexdigest(), "trained_on": "run" if of_run else "public"}
    if of_run and start.scenario is None and (named := _hash(told)) is not None:
        found["scenario"] = named
    return scenario.begun(start.model_copy(update=found))


def read_start(start: StartConfig) -> bytes:
    """Return what is in the file, opened, after holding it to the hash that the scenario says, if it says one.

    Raises:
        ConfigError: When it cannot be read, or is not to be taken.
    """
    path = file_of(start)
    data = _opened(path, start.identity)
    if start.sha256 is not None and (found := sha256(data).hexdigest()) != start.sha256:
        raise ConfigError(
            f"{path}: has SHA-256 {found[:16]}..., and the scenario begins from {start.sha256[:16]}...; put that file"
            " in its place, or take model.init.sha256 out to begin another run from this one"
        )
    check_whole(data, str(path))
    return data


def file_of(start: StartConfig) -> Path:
    """Return the file that is meant: of a run's folder, its model."""
    path = Path(start.file)
    try:
        if path.is_dir():
            return next((one for one in (path / MODEL, path / f"{MODEL}.age") if one.exists()), path / MODEL)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{start.file[:80]!r}: is no path of a file") from error
    return path


def about(data: bytes) -> dict[str, str] | None:
    """Return what a whole safetensors file says of the run of ours that wrote it; None where it says nothing.

    What is there under our name and cannot be read is of a run all the same: it says nothing more.
    """
    metadata = _header(data).get("__metadata__")
    if not isinstance(metadata, dict) or _ABOUT not in metadata:
        return None
    try:
        told = json.loads(metadata[_ABOUT])
    except (TypeError, ValueError, RecursionError):
        return {}
    return {str(name): str(value) for name, value in told.items()} if isinstance(told, dict) else {}


def noise_of(data: bytes) -> str:
    """Return where the run that wrote a file drew its noise from, as the file says; "os" of other files."""
    return (about(data) or {}).get("noise", "os")


def numbers_in(data: bytes, name: str) -> int:
    """Return how many numbers the tensors of a safetensors file have in all, by its header.

    Raises:
        ConfigError: When it is none.
    """
    check_whole(data, name)
    try:
        return sum(math.prod(value["shape"]) for key, value in _header(data).items() if key != "__metadata__")
    except (TypeError, KeyError):
        raise ConfigError(f"{name}: does not say the shapes of its tensors") from None


def check_whole(data: bytes, name: str) -> None:
    """Refuse what is no safetensors file from its first byte to its last.

    Raises:
        ConfigError: With what was found, and how to convert it.
    """
    size = int.from_bytes(data[:_SIZE], "little")
    try:
        header = _header(data)
        ends = [value["data_offsets"][1] for key, value in header.items() if key != "__metadata__"]
        whole = _SIZE + size + max(ends, default=0)
        if len(data) == whole:
            return
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        if data.startswith(_PICKLES) or name.lower().endswith(_OF_PICKLES):
            raise ConfigError(f"{name}: is a pickle, which runs code when it is read; {_CONVERT}") from None
        raise ConfigError(f"{name}: is no safetensors file, or its beginning is not whole; name another") from None
    if len(data) < whole:
        raise ConfigError(f"{name}: is cut short: {len(data)} bytes, where its header says {whole}; copy it again")
    raise ConfigError(f"{name}: has {len(data) - whole} bytes behind its end, which belong to no tensor; copy it again")


_CONVERT: Final = (
    "convert it where it was made: safetensors.torch.save_file(torch.load(FILE, weights_only=True),"
    ' "start.safetensors")'
)


def _header(data: bytes) -> dict[str, Any]:
    """Return the JSON object that a safetensors file begins with."""
    size = int.from_bytes(data[:_SIZE], "little")
    if len(data) < _SIZE or size > min(_MOST_HEADER, len(data) - _SIZE):
        raise ValueError("no header")
    header = json.loads(data[_SIZE : _SIZE + size])
    if not isinstance(header, dict):
        raise TypeError("a header is an object")
    return header


def _opened(path: Path, identity: str | None) -> bytes:
    """Return a file's bytes, opened where it lies sealed."""
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise ConfigError(f"{path}: is no plain file; name a .safetensors file, or a run's folder")
            if found.st_size > MOST_BYTES:
                raise ConfigError(f"{path}: has {found.st_size} bytes, where a model has at most {MOST_BYTES}")
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: the model cannot be read: {error.strerror}") from error
    except ValueError as error:  # a null byte
        raise ConfigError(f"{str(path)[:80]!r}: is no path of a file") from error
    if not data.startswith(_SEALED):
        return data
    if identity is None:
        raise ConfigError(f"{path}: is sealed; name the age key file that opens it: model.init.identity")
    from fedmodel.crypto.sealed import opener_from_key_file  # whoever uses a model that lies open needs no cryptography

    opener = opener_from_key_file(Path(identity))
    sink = io.BytesIO()
    try:
        opener.open(io.BytesIO(data), sink)
    except CryptoError as error:
        raise ConfigError(f"{path}: {error}") from None
    return sink.getvalue()


def _without_waiting(path: str, flags: int) -> int:
    """Open a file, and do not wait for whoever would write into it, as a pipe does."""
    return os.open(path, flags | os.O_NONBLOCK)


def _is_a_runs(path: Path) -> bool:
    """Whether a file lies where a run leaves its model."""
    beside = path.parent
    return (
        path.name in (MODEL, f"{MODEL}.age")
        and (beside / "scenario.toml").exists()
        and ((beside / "ledgers").exists() or (beside / "run.json").exists())
    )


def _hash(told: dict[str, str] | None) -> str | None:
    """Return the hash of the scenario that a file names, if it names one."""
    named = (told or {}).get("scenario_hash", "")
    return named if len(named) == 2 * sha256().digest_size and set(named) <= set("0123456789abcdef") else None


def _named(told: dict[str, str] | None) -> str:
    """Name the run that a file says it is of."""
    if not told:
        return "by the folder that it lies in" if told is None else "by its metadata"
    return f"scenario {told.get('scenario', '?')[:40]!r}, round {told.get('round', '?')[:10]}"
