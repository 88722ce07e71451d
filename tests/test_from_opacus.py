"""docs/from-opacus.md: both scripts run as they stand there, and train by the same figures."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from opacus import PrivacyEngine
from opacus.utils.batch_memory_manager import BatchMemoryManager
from torch.utils.data import DataLoader

import fedmodel as fm
from fedmodel.config import Scenario
from fedmodel.kinds import own_code
from scenarios.face.said import Objects

PAGE = (Path(__file__).parents[1] / "docs" / "from-opacus.md").read_text(encoding="utf-8")
ROWS = [
    [re.findall(r"`([^`]+)`", cell) for cell in line.split("|")[1:3]] for line in PAGE.splitlines() if "| `" in line
]


@pytest.mark.filterwarnings("ignore::UserWarning")  # Opacus advises its secure mode, and more orders
def test_both_scripts_run_and_their_noise_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(blocks) == 3
    names: dict[str, Any] = {"__name__": "__main__"}
    try:
        for block in blocks:
            exec(compile(block, "docs/from-opacus.md", "exec", dont_inherit=True), names)  # noqa: S102 - our own page
    finally:
        own_code.close()
    (ours,) = names["run"].privacy.to_dict("records")
    theirs, ((noise, rate, steps),) = names["optimizer"], names["engine"].accountant.history
    assert (ours["steps"], ours["sample_rate"], ours["max_grad_norm"]) == (steps, rate, theirs.max_grad_norm)
    assert names["run"].scenario.privacy.expected_batch_size == theirs.expected_batch_size
    assert ours["noise_multiplier"] == pytest.approx(noise, rel=0.01)  # Opacus searches to within 0.01 of epsilon
    assert names["run"].epsilon <= 8.0
    assert names["right"].float().mean() > 0.3  # chance is a tenth; noise at epsilon 8 leaves far more
    assert names["run"].figures["accuracy"] > 0.3


def test_the_table_has_names_of_opacus_and_names_of_ours() -> None:
    functions: list[Any] = [PrivacyEngine, PrivacyEngine.make_private, PrivacyEngine.make_private_with_epsilon]
    functions += [BatchMemoryManager, DataLoader]
    theirs = {name for one in functions for name in inspect.signature(one).parameters} | set(dir(PrivacyEngine))
    training = Scenario.model_fields["training"].annotation
    assert training is not None
    ours = Objects.__annotations__.keys() | {f"training.{key}" for key in training.model_fields}
    ours |= {f"Run.{name}" for name in dir(fm.Run)}
    assert len(ROWS) == 13
    assert {name for row in ROWS for name in row[0]} <= theirs
    assert {name for row in ROWS for name in row[1]} <= ours
