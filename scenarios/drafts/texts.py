"""A draft on texts and a base that was trained before: what the scenario says of both, and made-up texts beside it.

What is written follows from the base, which is public, and from what its owner says. Nothing is read off any record:
the texts are made up, in the form that the owner's own will have.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from os.path import relpath
from pathlib import Path
from typing import Final

from fedmodel.errors import ConfigError
from fedmodel.kinds.bases import TOKENIZER, Base, read_base, tokenizer_config

FOLDER: Final = "texts"
_HELD_OUT: Final = "held-out"
_LONGEST: Final = 128
_MOST_HELD_OUT: Final = 200
_FIRST: Final = (
    ("query", "value"), ("q_proj", "v_proj"), ("q_lin", "v_lin"), ("query_key_value",), ("c_attn",), ("Wqkv",),
)  # fmt: skip
"""What architectures call the layers that adapters are put on first (Hu et al. 2021, section 4.2)."""
_POSITIONS: Final = ("max_position_embeddings", "n_positions")


@dataclass(frozen=True)
class OnBase:
    """A base, and classes of texts.

    Attributes:
        folder: Where the base lies.
        base: What was read there.
        labels: The classes, in order.
    """

    folder: Path
    base: Base
    labels: tuple[str, ...]


def on_base(folder: Path, labels: tuple[str, ...]) -> OnBase:
    """Read a base.

    Raises:
        ConfigError: When it is none (`fedmodel.kinds.bases`), or does not say how many tokens it knows.
    """
    base = read_base(folder)
    if not isinstance(base.config.get("vocab_size"), int):
        raise ConfigError(f"--base {folder}: its config.json says no vocab_size, so it takes no one text; take another")
    return OnBase(folder, base, labels)


def model_section(on: OnBase, out: Path) -> str:
    """Return the section's lines but its heading."""
    targets = _targets(on.base)
    kept = (
        f"targets = {json.dumps(targets)}    # linear layers of the base, each with an adapter of its own\n"
        "rank = 8             # of each; what is sent grows with it\nalpha = 16"
        if targets
        else 'adapt = "bitfit"     # its biases train'
    )
    use = json.dumps(f"hf:{Path(relpath(on.folder, out)).as_posix()}")
    return (
        f"use = {use}    # the base, from this folder; silos have their own copies\n"
        f'task = "sequence-classification"\n{kept}'
    )


def data_section(on: OnBase, name: str, out: Path) -> str:
    """Return the section's lines but its heading."""
    positions = min(
        (on.base.config[key] for key in _POSITIONS if isinstance(on.base.config.get(key), int)), default=_LONGEST
    )
    tokenizer = tokenizer_config(on.base)
    return f"""source = "json-lines"
name = {json.dumps(name)}
folder = {json.dumps(str(out / FOLDER))}     # of a simulation, from the folder where a command runs and not
                     # from this one: a folder for each silo, and the server's, {_HELD_OUT}
text = "text"        # the fields of a line
label = "label"
labels = {json.dumps(on.labels)}
length = {min(_LONGEST, positions // 2 or 1)}         # tokens; what is longer is cut, and what is shorter
                     # costs as much, but for model.lengths

[data.tokenizer]     # the base's own, of which each party has a copy
sha256 = "{tokenizer.sha256}"
vocabulary = {tokenizer.vocabulary}
padding = {tokenizer.padding}
"""


def files(on: OnBase, silos: Sequence[str], records: int) -> dict[str, bytes]:
    """Return made-up texts for each silo and the server, and the tokenizer, by their paths in the draft's folder."""
    found = {f"{FOLDER}/{TOKENIZER}": on.base.tokenizer}
    for party in (*silos, _HELD_OUT):
        count = min(records, _MOST_HELD_OUT) if party == _HELD_OUT else records
        lines = [
            {"text": f"{on.labels[place % len(on.labels)]} {party} {place}", "label": on.labels[place % len(on.labels)]}
            for place in range(count)
        ]
        found[f"{FOLDER}/{party}/made-up.jsonl"] = "".join(f"{json.dumps(line)}\n" for line in lines).encode()
    return found


def _targets(base: Base) -> tuple[str, ...]:
    """Return which of the base's layers have adapters; none where their names are not known here."""
    there = {name.removesuffix(".weight").rpartition(".")[2] for name in base.tensors() if name.endswith(".weight")}
    return next((names for names in _FIRST if there.issuperset(names)), ())
