"""A base as a script names it, and a script's texts as the records that it takes.

| `train`, `test`, or a part of a list of them        | Its texts            | What is learnt of them |
|-----------------------------------------------------|----------------------|------------------------|
| a pair of lists, texts and labels                   | the first            | the second             |
| a frame, a Hugging Face `Dataset`, a dict of columns | the column `text`    | the label's column     |
| a list of texts, for `task = "causal-lm"`           | all of it            | each text's next token |
| anything else, such as arrays `tokens` and `mask`   | none: taken as it is | as it is               |

Guarantee: a text becomes the tokens that the base's own tokenizer makes of it, a file that is held to the hash by which
the scenario knows the base; one text is one record. How many tokens there are is declared by the base, and is not taken
from texts. Of a frame, a `Dataset` or a dict the text, the label, the person and what records are dealt by are read.

Errors name the place of a record and the rule, never a text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from fedmodel.data.keys import LABELS
from fedmodel.errors import ConfigError, DataError
from fedmodel.kinds.bases import TOKENIZER, place, tokenizer_config
from fedmodel.kinds.models.hf import LEARNS, PREFIX
from fedmodel.kinds.shape import NEXT, SEQUENCE
from fedmodel.kinds.tokens import TokenizerConfig, text_inputs

_OPTIONAL: Final = ("rank", "alpha", "dropout", "base_precision", "gradient_checkpointing", "lengths")


@dataclass(frozen=True)
class Base:
    """A model that was trained before, of which adapters are trained (docs/large-models.md).

    Attributes:
        folder: With `config.json`, `tokenizer.json` and `*.safetensors`, of transformers. It is read when a scenario is
            made of it, and no code of it is run.
        task: What stands on it: "sequence-classification", "token-classification", "causal-lm", "masked-lm" or
            "feature-extraction".
        adapt: What trains: "lora", "bitfit", all biases, or "head", nothing of the base.
        targets: Of "lora": which linear layers have an adapter, by the last part of their names.
        rank, alpha, dropout: Of "lora". Default: 8, 16 and 0.
        base_precision: In which the frozen base is held in memory: "float32", the default, "bf16" or "nf4".
        gradient_checkpointing: Whether its blocks are computed again in the backward pass, to take less memory.
        lengths: Shorter lengths that rows are cut to, each to the first that all of a text fits into.
        length: How many tokens of a text are read; what is longer is cut, and what is shorter costs as much, or as the
            first of `lengths` that it fits into.
        text: The column that is the text.
    """

    folder: str | Path
    _: KW_ONLY
    task: str
    adapt: str = "lora"
    targets: Sequence[str] = ()
    rank: int | None = None
    alpha: float | None = None
    dropout: float | None = None
    base_precision: str | None = None
    gradient_checkpointing: bool | None = None
    lengths: Sequence[int] | None = None
    length: int = 64
    text: str = "text"

    @property
    def place(self) -> Path:
        """The folder, from the root."""
        return Path(self.folder).expanduser().absolute()

    @cached_property
    def known(self) -> tuple[str, TokenizerConfig]:
        """The base's hash and its tokenizer, as they were when this was first asked.

        Raises:
            ConfigError: When the folder is no base that is taken (`fedmodel.kinds.bases`).
        """
        read = place(self.place)
        return read.sha256, tokenizer_config(read)

    def section(self) -> dict[str, Any]:
        """Return the section `model` of a scenario, which knows the base by its hash.

        Raises:
            ConfigError: When the folder is no base that is taken.
        """
        said = {key: getattr(self, key) for key in _OPTIONAL if getattr(self, key) is not None}
        return {
            "kind": "hf",
            "use": f"{PREFIX}{self.place}",
            "task": self.task,
            "adapt": self.adapt,
            "targets": [self.targets] if isinstance(self.targets, str) else list(self.targets),
            **said,
            "sha256": self.known[0],
        }

    @property
    def learns(self) -> str:
        """The task of data that is learnt, where nobody says: the first of those that it can.

        Raises:
            ConfigError: When there is no task of a base of that name.
        """
        if self.task not in LEARNS:
            raise ConfigError(f"task = {self.task!r} is none of a base's: {', '.join(LEARNS)}")
        return LEARNS[self.task][0]


@dataclass(frozen=True)
class Texts:
    """How a script's texts are read for a base.

    Attributes:
        base: Which one.
        task: What is learnt.
        label: The label's column, where one is named.
        besides: Other columns that are read: whose a record is, and what records are dealt by.
    """

    base: Base
    task: str
    label: str | None = None
    besides: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.task == SEQUENCE or self.base.task == "masked-lm":
            raise ConfigError(
                f'task = "{self.base.task}" learns of each token what no column of texts says; give arrays tokens and'
                " mask, with a label at each token, or JSON lines by a scenario's file (docs/data.md)"
            )
        if self.task == NEXT and self.label is not None:
            raise ConfigError('task = "next-token" learns of a text its own tokens; leave label out')

    def declared(self) -> dict[str, Any]:
        """Return what is public about records, as the section `data` says it."""
        arrays = text_inputs(self.base.length, self.base.known[1])
        inputs = {name: {"size": list(one.size), "below": one.below} for name, one in arrays.items()}
        return {"inputs": inputs, **({"classes": self.base.known[1].vocabulary} if self.task == NEXT else {})}

    def read(self, thing: Any, where: str) -> Any:
        """Return a data set as columns of tokens, labels and what is read besides; one of no texts as it is.

        Raises:
            ConfigError: When the base is another by now, or its tokenizer is none that is read.
            DataError: When a record has no text, at which place.
        """
        from fedmodel.data.tokens import coded, inputs_of, next_tokens

        if not holds_texts(thing, self.base.text):
            return thing
        columns = self._columns(thing)
        texts, label = list(columns.pop(self.base.text)), self.label or "label"
        for at, one in enumerate(texts):
            if not isinstance(one, str):
                raise DataError(f"{where}: record {at}: its {self.base.text!r} is no text; leave such records out")
        _, tokenizer = self.base.known
        code_NT = coded(texts, self.base.length, tokenizer, self.base.place / TOKENIZER)
        arrays = inputs_of(code_NT, tokenizer)
        if self.task == NEXT:
            columns[label] = next_tokens(arrays["tokens"], arrays["mask"])
        return {**columns, **arrays}

    def _columns(self, thing: Any) -> dict[str, Any]:
        """Return the columns that are read, the text's by its own name."""
        if isinstance(thing, tuple):
            return dict(zip((self.base.text, self.label or "label"), thing, strict=False))
        plain = thing.with_format(None) if hasattr(thing, "with_format") else thing
        names = _names(plain)
        label = self.label or next((name for name in LABELS if name in names), None)
        read = (self.base.text, *self.besides, *(() if self.task == NEXT else (label,)))
        return {str(name): list(plain[name]) for name in read if name in names}


def texts_of(said: Mapping[str, Any]) -> Texts | None:
    """Return how a script's texts are read, None where there are none or no base.

    Args:
        said: What a scenario is made from.

    Raises:
        ConfigError: When texts do not say what is learnt.
    """
    base = said["model"]
    if not isinstance(base, Base) or not holds_texts(texts_alone(said["train"]), base.text):
        return None
    by = getattr(said.get("partition"), "column", None)
    besides = {one for one in (said.get("person"), by) if isinstance(one, str)}
    return Texts(base, said.get("task") or base.learns, said.get("label"), tuple(sorted(besides)))


def are_texts(thing: Any) -> bool:
    """Tell whether something is a list of texts, by its first."""
    return isinstance(thing, list) and bool(thing) and isinstance(thing[0], str)


def texts_alone(thing: Any) -> Any:
    """Return a list of texts as one data set, and not as a list with one for each silo; so in each part of a list."""
    if are_texts(thing):
        return (thing,)
    return [texts_alone(one) for one in thing] if isinstance(thing, list) else thing


def holds_texts(thing: Any, text: str) -> bool:
    """Tell whether a data set, or the first of a list of them, is of texts, by its form and its columns' names."""
    if isinstance(thing, list):
        return bool(thing) and holds_texts(thing[0], text)
    if isinstance(thing, tuple):
        return bool(thing) and are_texts(thing[0] if not hasattr(thing[0], "tolist") else thing[0][:1].tolist())
    return text in _names(thing)


def _names(thing: Any) -> list[Any]:
    """Return the names of a data set's columns, none where it has none."""
    if isinstance(thing, Mapping):
        return list(thing)
    names: Any = getattr(thing, "column_names", None)  # of a data set of Hugging Face's, and of a table of pyarrow's
    return list(getattr(thing, "columns", ()) if names is None else names)
