"""What is asked of a kind of model: the keys that all have, what a run begins from, and the network that it builds."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from fedmodel.errors import ConfigError
from fedmodel.kinds.section import Hash, Section, SiloName
from fedmodel.kinds.shape import DataShape

if TYPE_CHECKING:
    from torch import nn

    from fedmodel.kinds.source import Source

Widths = Annotated[tuple[Annotated[int, Field(ge=1, le=65_536)], ...], Field(strict=False)]

# Left out of a document, and so of a scenario's hash, where it is not said.
WeightStandardization = Annotated[bool, Field(exclude_if=lambda said: not said)]


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


def one_array(shape: DataShape, kind: str) -> None:
    """Refuse records that are no one array of real numbers, for a kind of model that takes nothing else.

    Raises:
        ConfigError: What they are.
    """
    if shape.inputs is not None or shape.below is not None:
        found = f"several arrays, {', '.join(shape.inputs)}" if shape.inputs else "whole numbers, such as tokens"
        raise ConfigError(
            f"model.kind = {kind!r} takes records that are one array of real numbers, and these are {found}; name a"
            " model of your own by model.use"
        )


class Model(Section, ABC):
    """The section `model` of a scenario: a kind adds its `kind`, a literal, and its keys (`fedmodel.kinds.models`).

    Attributes:
        without_memory: Whether it can be built on torch's device "meta", where nothing is allocated.
        init: What parameters begin from: a word, or a file.
        init_value: Of all parameters, with `init = "constant"`.
    """

    without_memory: ClassVar[bool] = True

    init: Init = "random"
    init_value: float | None = Field(default=None, ge=-1e6, le=1e6)

    @model_validator(mode="after")
    def _constant_has_value(self) -> Model:
        if (self.init == "constant") != (self.init_value is not None):
            raise ValueError('init_value is given with init = "constant", and only then')
        return self

    @property
    def code(self) -> str | None:
        """What of it is code of the user's own, by its name; None where nothing is."""
        return None

    @property
    def cut_to(self) -> tuple[int, ...]:
        """Lengths that rows of texts are cut to, beside the whole: each to the first that all of it fits into."""
        return ()

    def why_not_on(self, data: Source) -> str | None:  # noqa: ARG002 - most kinds need records to tell
        """Return why it cannot learn of a source of records, by what both say; None where nothing speaks against it."""
        return None

    @abstractmethod
    def build(self, shape: DataShape) -> nn.Module:
        """Return a network with random parameters, drawn from torch's global generator; torch is imported in here.

        What is promised of it is measured before it trains (`fedmodel.learning.refusals`, `.preflight`): each record of
        a batch is treated by itself. There is no batch normalisation, buffers and frozen parameters are the same
        whatever the seed, and dropout is `fedmodel.kinds.layers.Dropout`, whose masks are as secret as the noise.

        Args:
            shape: Of a record, and how many classes there are; the network has `shape.outputs` outputs.

        Raises:
            ConfigError: When the architecture does not fit the records.
        """
