"""A model that was trained before, from a folder, of which adapters alone are trained."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Literal

from pydantic import AfterValidator, Field, model_validator

from fedmodel.errors import ConfigError
from fedmodel.kinds.bases import Base, base_of, place
from fedmodel.kinds.model import Model
from fedmodel.kinds.section import Hash, Positive
from fedmodel.kinds.shape import CLASSIFICATION, MULTI_LABEL, NEXT, REGRESSION, SEQUENCE, DataShape
from fedmodel.kinds.tokens import Length, check_lengths

if TYPE_CHECKING:
    from torch import nn

    from fedmodel.kinds.source import Source

PREFIX: Final = "hf:"
_OF_LORA: Final = ("targets", "rank", "alpha", "dropout")

BasePrecision = Literal["float32", "bf16", "nf4"]
"""In how many bits a frozen base is held in memory."""

TaskName = Literal["sequence-classification", "token-classification", "causal-lm", "masked-lm", "feature-extraction"]

_OF_A_TEXT: Final = (CLASSIFICATION, MULTI_LABEL, REGRESSION)
LEARNS: Final[Mapping[str, tuple[str, ...]]] = {
    "sequence-classification": _OF_A_TEXT,
    "token-classification": (SEQUENCE,),
    "causal-lm": (NEXT,),
    "masked-lm": (NEXT,),
    "feature-extraction": _OF_A_TEXT,
}
"""Which tasks of data each task of a base learns: one answer of a text, or one at each of its tokens."""


def _names_folder(value: str) -> str:
    """Refuse what names no folder."""
    if not value.startswith(PREFIX) or not value.removeprefix(PREFIX).strip():
        raise ValueError(f'{value!r} names no base; write "hf:FOLDER", as in "hf:bases/minilm"')
    return value


class HfConfig(Model):
    """A model of transformers from a folder (`fedmodel.kinds.bases`), frozen, with adapters that train.

    Attributes:
        use: "hf:" and the folder, from that of the scenario's file; it is in no document, as a start's file is in none.
        task: What stands on the base: a class of a text, a class of each token, the next token, seen from before it or,
            hidden (`fedmodel.kinds.hidden`), from both sides, or the mean of what the base makes of a text's tokens,
            with one linear layer on it.
        adapt: What trains: low-rank adapters of linear layers (Hu et al. 2021), all biases (Ben Zaken et al. 2021), or
            nothing of the base. What the base lacks for the task, a head, trains whole with each.
        targets: Of "lora": which linear layers have an adapter, by the last part of their names.
        rank: Of "lora": of each adapter.
        alpha: Of "lora": what an adapter adds is multiplied with alpha / rank.
        dropout: Of "lora": of what goes into an adapter, by masks as secret as the noise. The base's own is off.
        base_precision: In which the base's matrices are held in memory (`fedmodel.kinds.held`); they are computed with
            in `training.precision`, and adapters are float32. Of "bf16" and "nf4" they are rounded, once.
        gradient_checkpointing: Whether the base's blocks are computed again in the backward pass, and what is inside of
            them is not kept (`fedmodel.kinds.recomputed`).
        lengths: In rising order, numbers of tokens that rows are cut to as it trains, each to the first that all of the
            text fits into (`fedmodel.learning.lengths`). Padding past that is not computed.
        sha256: Of the base's files, whatever it is held in; written when the folder is read.
    """

    without_memory: ClassVar[bool] = False

    kind: Literal["hf"]
    use: Annotated[str, Field(max_length=1_000), AfterValidator(_names_folder)] | None = Field(
        default=None, exclude=True
    )
    task: TaskName
    adapt: Literal["lora", "bitfit", "head"] = "lora"
    targets: Annotated[tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.]{1,100}$")], ...], Field(strict=False)] = ()
    rank: int = Field(default=8, ge=1, le=1_024)
    alpha: Positive = 16.0
    dropout: float = Field(default=0.0, ge=0, lt=1)
    # Left out of what is hashed where it is not said: scenarios from before it keep the hash that silos admit.
    base_precision: BasePrecision = Field(default="float32", exclude_if=lambda said: said == "float32")
    gradient_checkpointing: bool = Field(default=False, exclude_if=lambda said: not said)
    lengths: Annotated[tuple[Length, ...], Field(strict=False, max_length=16)] = Field(
        default=(), exclude_if=lambda said: not said
    )
    sha256: Hash | None = None

    @model_validator(mode="after")
    def _says_what_trains(self) -> HfConfig:
        if self.init in ("zero", "constant"):
            raise ValueError(f'init = "{self.init}" would train nothing by adapters; leave it out, or name a file')
        if (self.adapt == "lora") != bool(self.targets):
            raise ValueError(
                'adapt = "lora" needs targets, the linear layers that have an adapter, as in ["query", "value"]'
                if self.adapt == "lora"
                else f'targets are of adapt = "lora", and this is "{self.adapt}"; leave them out'
            )
        if self.gradient_checkpointing and self.adapt == "head":
            raise ValueError('adapt = "head" passes no gradient back to a block; leave gradient_checkpointing out')
        if any(one >= other for one, other in pairwise(self.lengths)):
            raise ValueError(f"lengths rise, and these are {list(self.lengths)}")
        fields = type(self).model_fields
        for key in _OF_LORA if self.adapt != "lora" else ():
            if getattr(self, key) != fields[key].default:
                raise ValueError(f'{key} is of adapt = "lora", and this is "{self.adapt}"; leave it out')
        return self

    def why_not_on(self, data: Source) -> str | None:
        """Return that data is of another task than what stands on the base, or no texts; None where it is."""
        if data.learnt not in LEARNS[self.task]:
            fitting = " or ".join(f'"{name}"' for name, learnt in LEARNS.items() if data.learnt in learnt)
            return (
                f'model.task = "{self.task}" learns {" or ".join(LEARNS[self.task])}, and data.source ='
                f' "{data.source}" is of task "{data.learnt}"; '
                + (f"take model.task = {fitting}, or other data" if fitting else "no base learns that")
            )
        try:
            if data.is_settled:
                check_lengths(self.lengths, data.shape)
        except ConfigError as error:
            return f'data.source = "{data.source}": {error}'
        return None

    @property
    def cut_to(self) -> tuple[int, ...]:
        """Lengths that rows are cut to."""
        return self.lengths

    @property
    def folder(self) -> Path | None:
        """The folder that is named, None where the hash alone is."""
        return None if self.use is None else Path(self.use.removeprefix(PREFIX)).expanduser()

    def placed(self, folder: Path) -> HfConfig:
        """Return the same with its folder said from the root, where it is relative from the folder given."""
        if self.folder is None:
            return self
        return self.model_copy(update={"use": f"{PREFIX}{folder.absolute() / self.folder}"})

    def settled(self) -> HfConfig:
        """Return the same with the base's hash; this process knows where the base lies from then on.

        Raises:
            ConfigError: When the base cannot be had (`fedmodel.kinds.bases`), or is not the one that the scenario says.
        """
        base = self._read()
        if self.sha256 is not None and base.sha256 != self.sha256:
            raise ConfigError(
                f"{self.folder}: is the base of SHA-256 {base.sha256[:16]}..., and the scenario says"
                f" {self.sha256[:16]}...; put that one there, or take model.sha256 out"
            )
        return self.model_copy(update={"sha256": base.sha256})

    def _read(self) -> Base:
        """Return the base, by its folder where one is named."""
        if self.folder is not None:
            return place(self.folder)
        if self.sha256 is None:
            raise ConfigError('model.use is missing; name the folder of the base: use = "hf:FOLDER"')
        return base_of(self.sha256)

    def build(self, shape: DataShape) -> nn.Module:
        """Return the base with its adapters.

        Raises:
            ConfigError: When the base cannot be had, is of another architecture than the task's, or does not fit the
                records.
        """
        from fedmodel.kinds.adapted import Adaptation, adapted
        from fedmodel.kinds.adapters import Lora

        check_lengths(self.lengths, shape)
        lora = Lora(self.targets, self.rank, self.alpha, self.dropout) if self.adapt == "lora" else None
        config = Adaptation(
            self.sha256 or self._read().sha256,
            self.task,
            lora,
            biases=self.adapt == "bitfit",
            precision=self.base_precision,
            recomputes=self.gradient_checkpointing,
        )
        return adapted(config, shape)
