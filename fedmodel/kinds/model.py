"""The section `model`: its kind, its shape, and what it begins from."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from fedmodel.kinds.section import Hash, Section, SiloName

Widths = Annotated[tuple[Annotated[int, Field(ge=1, le=65_536)], ...], Field(strict=False)]


class StartConfig(Section):
    """A file of parameters that a run begins from.

    As a person writes it, it says where the file lies and what it was trained on. Resolved
    (`fedmodel.learning.starts`), it says which file it is, by a hash, and which run made it. Where it lies is in no
    document that is made from a scenario, so that a scenario's hash is the same wherever it is read, and no silo is
    told a path.

    Attributes:
        file: A `.safetensors` file or a run's folder, from the folder of the scenario's file.
        identity: The age key file that opens it, where it is sealed.
        trained_on: "public", which is the author's word that no private record is in it; or "run", one of `fedmodel`.
        sha256: Of what is in the file, opened.
        scenario: Of a run: the hash of its scenario, as the file, or a ledger that goes on, says.
        run: Its number, where ledgers go on from it, as in a simulation.
        silos: Those whose ledgers do.
    """

    file: str = Field(default="start.safetensors", min_length=1, exclude=True)
    identity: str | None = Field(default=None, min_length=1, exclude=True)
    trained_on: Literal["public", "run"] | None = None
    sha256: Hash | None = None
    scenario: Hash | None = None
    run: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,19}$")] | None = None
    silos: Annotated[tuple[SiloName, ...], Field(strict=False, max_length=10_000)] = ()

    @model_validator(mode="after")
    def _only_a_run_has_one(self) -> StartConfig:
        if self.trained_on == "public" and (self.scenario or self.run or self.silos):
            raise ValueError(
                'trained_on = "public" is of no run, and scenario, run and silos are of one; leave them out'
            )
        if bool(self.run) != bool(self.silos):
            raise ValueError("run and silos are written together, when a simulation goes on from a run's ledgers")
        return self


InitName = Literal["random", "zero", "constant"]


def _path_alone(value: object) -> object:
    """Take a path for the file that it names: none of the words looks like one."""
    return {"file": value} if isinstance(value, str) and re.search(r"[./\\]", value) else value


def _kind_of_start(value: object) -> str:
    return "file" if isinstance(value, dict | StartConfig) else "word"


Init = Annotated[
    Annotated[InitName, Tag("word")] | Annotated[StartConfig, Tag("file")],
    Discriminator(_kind_of_start),
    BeforeValidator(_path_alone),
]


class _ModelBase(Section):
    init: Init = "random"
    init_value: float | None = Field(default=None, ge=-1e6, le=1e6)

    @model_validator(mode="after")
    def _constant_has_value(self) -> _ModelBase:
        if (self.init == "constant") != (self.init_value is not None):
            raise ValueError('init_value is given with init = "constant", and only then')
        return self


class MlpConfig(_ModelBase):
    """Fully connected layers; `hidden = []` is a linear model."""

    kind: Literal["mlp"]
    hidden: Widths = ()
    activation: Literal["relu", "tanh"] = "relu"
    dropout: float = Field(default=0.0, ge=0, lt=1)


class CnnConfig(_ModelBase):
    """Convolutions of 3x3 with GroupNorm, each followed by 2x2 max pooling, then one linear layer."""

    kind: Literal["cnn"]
    channels: Widths = (16, 32)
    groups: int = Field(default=4, ge=1)
    activation: Literal["relu", "tanh"] = "relu"
    dropout: float = Field(default=0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _groups_divide(self) -> CnnConfig:
        if not self.channels:
            raise ValueError("a cnn needs at least one entry in channels")
        for width in self.channels:
            if width % self.groups:
                raise ValueError(f"groups = {self.groups} does not divide channels of {width}, as GroupNorm needs")
        return self


ModelConfig = Annotated[MlpConfig | CnnConfig, Field(discriminator="kind")]
