"""The audit as a script asks for it: of a script's own model too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import fedmodel as fm
from fedmodel.errors import Inconclusive
from fedmodel.kinds import own_code
from tests.scenarios.face.test_objects import Flowers, Net

pytestmark = pytest.mark.usefixtures("same_bytes")


@pytest.fixture(autouse=True)
def _closed() -> Any:
    yield
    own_code.close()


def scenario() -> fm.Scenario:
    return fm.Scenario.of(
        model=Net,
        train=Flowers(120),
        test=Flowers(30, seed=1),
        silos=3,
        rounds=4,
        local_steps=2,
        noise_multiplier=3.0,
        delta=1e-3,
        max_grad_norm=1.0,
        sample_rate=1.0,
        expected_batch_size=20,
        learning_rate=0.5,
        seed=5,
    )


def test_a_scripts_own_model_is_run_with_canaries_and_attacked(tmp_path: Path) -> None:
    found = fm.audit(scenario(), canaries=600, out=tmp_path / "run")
    assert found.verdict == "not-refuted"
    assert found.found == json.loads((tmp_path / "run" / "audit.json").read_text(encoding="utf-8"))
    assert max(found.lower_bounds.values()) <= found.run.epsilon
    assert found.run.scenario.audit is not None
    assert isinstance(found.run.model, Net)
    for shown in (repr(found), found._repr_html_()):
        assert "not-refuted" in shown
    assert "<script" not in found._repr_html_()


def test_too_little_power_ends_before_anything_is_run(tmp_path: Path) -> None:
    advice = (
        r"^an audit with 60 canaries would .*, so its pass would mean nothing; raise canaries, or "
        r"where more of them change nothing take larger lots in fewer rounds$"
    )
    with pytest.raises(Inconclusive, match=advice):
        fm.audit(scenario(), canaries=60, out=tmp_path / "run")
    with pytest.raises(fm.ConfigError, match=r"^canaries 6 makes"):
        fm.audit(scenario(), canaries=6, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_scenario_that_was_made_says_its_own(tmp_path: Path) -> None:
    with pytest.raises(fm.ConfigError, match="already says its own"):
        fm.audit(scenario(), ["rounds=2"], out=tmp_path / "run")
