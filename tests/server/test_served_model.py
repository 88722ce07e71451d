"""A model beside which canaries have a block is begun, measured and saved as if it had none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load

from fedmodel.canaries.probes import block_of
from fedmodel.config import AuditConfig, Scenario
from fedmodel.errors import ProtocolError
from fedmodel.learning.jobs import State
from fedmodel.learning.models import build_model
from fedmodel.learning.vectors import flatten
from fedmodel.seeds import derive_seed
from server.run_files import MODEL, RunFiles
from server.served_model import ServedModel


def served(scenario: Scenario, folder: Path, beside: int = 0) -> ServedModel:
    return ServedModel(scenario, RunFiles(folder, folder, sealed=False), torch.device("cpu"), beside)


def test_a_run_begins_from_the_seeds_model_and_a_block_of_zeros_behind_it(tiny: Scenario, tmp_path: Path) -> None:
    own = flatten(build_model(tiny.model, tiny.data.shape, derive_seed(tiny.seed or 0, "model")))
    assert served(tiny, tmp_path).begin().tobytes() == own.tobytes()
    audited = tiny.model_copy(update={"audit": AuditConfig(canaries="probe", count=7)})
    block = block_of(audited)
    assert block is not None
    begun = served(audited, tmp_path, block.parameters).begin()
    wrapped = block.module(build_model(tiny.model, tiny.data.shape, derive_seed(tiny.seed or 0, "model")))
    assert begun.tobytes() == flatten(wrapped).tobytes()
    assert begun[len(own) :].tolist() == [0.0] * 8


def test_what_stands_behind_the_model_is_measured_and_saved_with_nothing(tiny: Scenario, tmp_path: Path) -> None:
    bare, model = served(tiny, tmp_path), served(tiny, tmp_path, beside=3)
    own = np.linspace(-1, 1, len(bare.begin()), dtype=np.float32)
    with_block = np.concatenate([own, np.full(3, 9.0, np.float32)])
    assert model.measure(with_block) == bare.measure(own)
    bare.save(State(own), 4)
    saved = (tmp_path / MODEL).read_bytes()
    model.save(State(with_block), 4)
    assert (tmp_path / MODEL).read_bytes() == saved
    assert sum(tensor.size for tensor in load(saved).values()) == len(own)


@pytest.mark.parametrize("place", [0, -1], ids=["in the model", "behind it"])
def test_a_vector_that_is_not_finite_or_does_not_fit_is_not_used(place: int, tiny: Scenario, tmp_path: Path) -> None:
    model = served(tiny, tmp_path, beside=3)
    begun = model.begin()
    broken = begun.copy()
    broken[place] = np.nan
    with pytest.raises(ProtocolError, match="NaN or infinity"):
        model.measure(broken)
    with pytest.raises(ProtocolError, match="does not fit"):
        model.save(State(begun[:-1]), 1)
    assert not (tmp_path / MODEL).exists()
