"""A trained model, read from a run's folder or from its file, with the description that lies beside it.

| What is named                        | Is                                                                      |
|--------------------------------------|-------------------------------------------------------------------------|
| a folder                             | its `model.safetensors`, or `model.safetensors.age`                     |
| a file                               | that file; what describes it lies beside                                |
| no `model.json` beside it            | described by the run's `scenario.toml`; refused where that is gone too  |
| a description of another scenario    | refused: the model's own file names the scenario that it is of, by hash |
| sealed                               | opened by an age key file; refused without                              |
| what was trained on a base           | put on that base, whose folder is named; refused without, or by another |

Neither Flower nor Opacus, nor what runs at a server or a silo, is imported for it.

Does NOT show that a run made the model: `report verify` does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Final

from torch import nn

from fedmodel.config import ModelConfig, StartConfig
from fedmodel.errors import ConfigError
from fedmodel.kinds.bases import folder_of_base, place
from fedmodel.kinds.models.hf import HfConfig
from fedmodel.learning.description import DESCRIPTION, Description, describe, read_description
from fedmodel.learning.fitting import fit
from fedmodel.learning.starts import about, file_of, read_start

_SCENARIO: Final = "scenario.toml"


@dataclass(frozen=True)
class Trained:
    """A model, ready to be used.

    Attributes:
        description: What it reads and answers.
        module: In evaluation, on the CPU.
        data: Its file, opened.
    """

    description: Description
    module: nn.Module
    data: bytes = field(repr=False)

    @property
    def sha256(self) -> str:
        """SHA-256 of its file, opened, in hexadecimal."""
        return sha256(self.data).hexdigest()


def read_model(path: Path, identity: Path | None = None, base: Path | None = None) -> Trained:
    """Read a trained model and its description.

    Args:
        path: A folder, or the model's file.
        identity: The age key file that opens it, where it is sealed.
        base: The folder of the base that it was trained on, where it was on one.

    Raises:
        ConfigError: When it cannot be read, is of no run, or is described by nothing, or by what is of another model;
            or its base is not said, or is another.
    """
    named = StartConfig(file=str(path), identity=None if identity is None else str(identity))
    file = file_of(named)
    if identity is None and file.suffix == ".age":
        raise ConfigError(f"{file}: is sealed; name the age key file that opens it: --identity FILE")
    data = read_start(named)
    told = about(data)
    if told is None:
        raise ConfigError(f"{file}: does not say which run made it; a model is used as the run's server wrote it")
    description = _described(file)
    if told.get("scenario_hash") != description.scenario_hash:
        raise ConfigError(
            f"{file.parent / DESCRIPTION}: describes a model of scenario {description.scenario_hash[:16]}..., and"
            f" {file.name} is of {told.get('scenario_hash', 'none')[:16]}...; put the two of one run beside each other"
        )
    find_base(description.model, base, file)
    module = description.built()
    fit(module, data, str(file))
    return Trained(description, module.eval(), data)


def find_base(model: ModelConfig, folder: Path | None, file: Path, said: str = "--base ") -> None:
    """Know where the base lies that a model was trained on, and that it is this one to the byte.

    Args:
        model: As a scenario or a description has it.
        folder: Of the base; None where nobody says.
        file: What holds the model, or names it.
        said: What a person names the folder by.

    Raises:
        ConfigError: When it is not said, is another, or the model was trained on none.
    """
    if not isinstance(model, HfConfig):
        if folder is not None:
            raise ConfigError(f"{said.strip()}: {file.name} is of a model that was trained on no base; leave it out")
        return
    if model.sha256 is None:
        raise ConfigError(f"{file}: does not say by sha256 on which base the model was trained")
    if folder is None:
        if folder_of_base(model.sha256) is None:
            raise ConfigError(
                f"{file}: holds what was trained on the base of SHA-256 {model.sha256[:16]}..., and nothing of that;"
                f" name the folder of a copy: {said}FOLDER"
            )
        return
    if (found := place(folder).sha256) != model.sha256:
        raise ConfigError(
            f"{said}{folder}: is the base of SHA-256 {found[:16]}..., and the model was trained on"
            f" {model.sha256[:16]}...; name the folder of that one, with the very same config.json and tokenizer.json"
        )


def _described(file: Path) -> Description:
    """Return what lies beside a model's file and describes it."""
    path, scenario_file = file.parent / DESCRIPTION, file.parent / _SCENARIO
    if path.exists():
        return read_description(path)
    if not scenario_file.exists():
        raise ConfigError(
            f"{path}: is missing, and says how records are read for the model; copy it from the run's folder"
        )
    from fedmodel.config import read_scenario  # a run of a version that wrote no description
    from fedmodel.provision import scenario_hash

    scenario = read_scenario(str(scenario_file))
    return describe(scenario, scenario_hash(scenario))
