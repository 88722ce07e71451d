"""What an outsider could find in a run's final model: loss canaries, and membership of real records.

It needs the records, and so is for a simulation.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedmodel.config import Scenario
from fedmodel.errors import ConfigError, DataError
from fedmodel.kinds.bases import folder_of_base
from fedmodel.provision import bases_of

if TYPE_CHECKING:
    from torch import nn

    from fedmodel.data import Records


def loss_scores(scenario: Scenario, module: nn.Module) -> NDArray[np.float64]:
    """Return minus a model's loss on every loss canary, silo after silo."""
    from fedmodel.audit.membership import record_losses
    from fedmodel.canaries.probes import loss_canaries
    from fedmodel.learning.tasks import objective

    aim = objective(scenario.data.shape, scenario.training.loss)
    losses = [record_losses(module, aim, loss_canaries(scenario, silo)) for silo in scenario.federation.silos]
    return -np.concatenate(losses).astype(np.float64)


def final_model(scenario: Scenario, run_dir: Path) -> nn.Module:
    """Return the model that a simulated run ended with.

    Raises:
        ConfigError: When there is none, or it is sealed.
    """
    import safetensors.torch

    from fedmodel.learning.models import build_model
    from server.run_files import MODEL

    path = run_dir / MODEL
    if not path.is_file():
        raise ConfigError(f"{path}: there is no model to attack; a deployed server's is sealed")
    module = build_model(scenario.model, scenario.data.shape, seed=0)
    module.load_state_dict(safetensors.torch.load(path.read_bytes()))
    return module.eval()


def first_model(scenario: Scenario, run_dir: Path) -> nn.Module:
    """Return the model that a simulated run began with: random by its seed, or of the file whose copy it has.

    Raises:
        ConfigError: When that copy is gone, or is not what the scenario names.
    """
    from fedmodel.learning.fitting import fit
    from fedmodel.learning.models import build_model
    from fedmodel.learning.starts import START, read_start
    from fedmodel.seeds import derive_seed

    module = build_model(scenario.model, scenario.data.shape, derive_seed(scenario.seed or 0, "model"))
    if scenario.start is not None:
        path = run_dir / START
        fit(module, read_start(scenario.start.model_copy(update={"file": str(path), "identity": None})), str(path))
    return module.eval()


def membership(scenario: Scenario, run_dir: Path) -> dict[str, Any] | None:
    """Return what membership inference on the final model finds, None where there are too few records to try."""
    from fedmodel.audit.membership import NOTE, attacks

    members, held_out = _records(scenario)
    try:
        found = attacks(final_model(scenario, run_dir), scenario, members, held_out)
    except ConfigError:
        return None
    rows = {one.name.replace("-", "_"): {**asdict(one)} for one in found}
    for row in rows.values():
        del row["name"]
    return {**rows, "note": NOTE}


def why_not_here(scenario: Scenario, run_dir: Path) -> str | None:
    """Return why a run's model cannot be attacked in this process; None where it can, or there is none.

    Args:
        scenario: As it was run. Code of somebody's own that it names is not imported.
        run_dir: The run's folder.
    """
    from server.run_files import MODEL

    if not (run_dir / MODEL).is_file():
        return None
    for key, use in scenario.own_code.items():
        if key.startswith("metrics["):
            continue  # figures, of which an audit looks at none
        return f"that needs {key} = {use!r}, and code of somebody's own is never run to read a report"
    for sha256 in bases_of(scenario):
        if folder_of_base(sha256) is None:
            return f"that needs the base of SHA-256 {sha256[:16]}...; name the folder of a copy: --base FOLDER"
    try:
        final_model(scenario, run_dir)
        _records(scenario)
    except (ConfigError, DataError) as error:
        return str(error)
    return None


def _records(scenario: Scenario) -> tuple[Records, Records]:
    """Return all silos' records, and those that are held out. Sensitive."""
    from fedmodel.data import Records, held_out_records, silo_records

    members = Records.joined([silo_records(scenario, silo) for silo in scenario.federation.silos])
    return members, held_out_records(scenario)
