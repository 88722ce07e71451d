"""An audit of adapters on a base: canaries beside them see the mechanism, and the model on the base is attacked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from scenarios.cli.main import app
from tests.bases import scenario_on
from tests.drawing import same_bytes

__all__ = ["same_bytes"]


@pytest.mark.slow
@pytest.mark.usefixtures("same_bytes")
def test_a_claim_of_adapters_is_not_refuted_and_every_gauge_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = scenario_on(
        tmp_path,
        privacy={"noise_multiplier": 3.0, "epsilon": None, "sample_rate": 1.0, "expected_batch_size": 20},
        training={"local_steps": 2, "max_physical_batch": 64},
        data={"held_out": 0.5, "partition": {"kind": "iid", "min_records": 20}},
    )
    lines = [{"text": f"{word} {number}", "label": word} for number in range(70) for word in ("good", "bad")]
    (tmp_path / "texts" / "all.jsonl").write_text("\n".join(map(json.dumps, lines)))
    words = [
        "audit",
        "run",
        str(path),
        "--set",
        "rounds=4",
        "--canaries",
        "600",
        "--out",
        "run",
        "--no-report",
        "--json",
    ]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["verdict"] == "not-refuted", found["reasons"]
    assert {one["name"] for one in found["unmeasured"]} == {"denominator"}  # of full lots
    assert all(gauge["passed"] for gauge in found["gauges"])
    assert found["membership"].keys() == {"loss_threshold", "rmia", "note"}
    assert 0 < max(found["lower_bounds"][name]["epsilon"] for name in found["lower_bounds"]) < found["claimed_epsilon"]
