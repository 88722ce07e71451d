"""A deployment on a base that was trained before, as real processes: each party has a copy, and one of them another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedmodel.errors import ConfigError
from tests.bases import scenario_on
from tests.fakes import charged
from tests.integration.test_rehearsal import fedmodel

_WEST = """
import os, pathlib, sys
own = next((word for word in sys.orig_argv if word.endswith("silos/west")), None)
for file in [] if own is None else sorted(pathlib.Path(own).glob("bases/*/tokenizer.json")):
    if not file.with_suffix(".touched").exists():
        file.with_suffix(".touched").touch()
        file.write_bytes(file.read_bytes() + b" ")
"""
_WITHOUT = "import sys\nsys.modules |= dict.fromkeys(('transformers', 'peft', 'tokenizers'))\n"


@pytest.mark.slow
def test_silos_with_the_base_train_adapters_and_one_whose_copy_differs_by_a_byte_takes_no_part(tmp_path: Path) -> None:
    path = scenario_on(tmp_path, data={"folder": None, "held_out": None})
    for silo in ("north", "south", "west", "held-out"):
        (tmp_path / "own" / silo).mkdir(parents=True)
        lines = [{"text": f"{word} {silo} {number}", "label": word} for number in range(10) for word in ("good", "bad")]
        (tmp_path / "own" / silo / "notes.jsonl").write_text("\n".join(map(json.dumps, lines)))
    for name, text in (("site", _WEST), ("bare", _WITHOUT)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "sitecustomize.py").write_text(text)
    words = ["deploy-local", str(path), "--tables", "own", "--loopback", "--out", "r", "--json"]
    done = fedmodel(*words, folder=tmp_path, PYTHONPATH=str(tmp_path / "site"))
    assert done.returncode == 0, done.stderr
    summary, run = json.loads(done.stdout), tmp_path / "r"
    assert [row["silo"] for row in summary["privacy"] if row["steps"]] == ["north", "south"]
    assert [(one["silo"], one["code"]) for one in summary["dropouts"]] == [("west", ConfigError.code)]
    assert charged(run / "ledgers" / "west.sqlite") == []
    logs = "".join(one.read_text(encoding="utf-8") for one in (run / "kits" / "silos" / "west" / "logs").glob("*.log"))
    (refused, *_) = [line for line in logs.splitlines() if "put the very same files there" in line]
    (sha256,) = [one.name for one in (run / "kits" / "silos" / "north" / "bases").iterdir()]
    assert f"and {sha256}... is asked for" in refused
    assert summary["parameters"] == 2 * 128 + 33
    page = (run / "report.html").read_text(encoding="utf-8")
    assert f"(SHA-256 {sha256}" in page
    told = fedmodel("report", "verify", "r", "--json", folder=tmp_path, PYTHONPATH=str(tmp_path / "bare"))
    assert json.loads(told.stdout)["valid"], told.stderr
    assert "transformers" not in told.stderr
