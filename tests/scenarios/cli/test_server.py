"""What `server status` shows a person of runs: each figure under its own name, whatever the run's task is."""

from __future__ import annotations

from typing import Any

import pytest

from scenarios.cli import server


def run(name: str, accuracy: float | None, metrics: dict[str, float] | None) -> dict[str, Any]:
    told = {"run": name, "state": "running", "rounds": 1, "rounds_planned": 3, "usefulness": None}
    return told | {"accuracy": accuracy, "metrics": metrics}


def test_a_figure_stands_beside_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    found = {
        "running": True,
        "federation": "northern",
        "roster": {"serial": 1, "expires": "2030-01-01T00:00:00"},
        "silos": [],
        "warnings": [],
        "runs": [
            run("classes", 0.9123, {"accuracy": 0.9123, "loss": 0.2}),
            run("numbers", None, {"rmse": 3.25, "loss": 0.4}),
            run("new", None, None),
        ],
    }
    server._show_status(found)
    rows = {line.split()[1]: line.split() for line in capsys.readouterr().out.splitlines() if "1/3" in line}
    assert rows["classes"][-3:-1] == ["accuracy", "0.9123"]
    assert rows["numbers"][-3:-1] == ["rmse", "3.2500"]
    assert rows["new"][-2] == "-"


@pytest.mark.parametrize("width", [30, 66, 67, 80])
def test_a_runs_name_is_in_one_line_where_there_is_room_and_never_cut(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(server.out, "width", width)
    name = "study-20261201-043804-5879x"
    assert len(name) == 27
    failed = {**run(name, None, None), "state": "failed: too-few-silos"}
    found = {"running": True, "federation": "n", "silos": [], "warnings": [], "runs": [failed, run("b", 0.9123, None)]}
    server._show_status({**found, "roster": {"serial": 1, "expires": "2030-01-01T00:00:00"}})
    lines = capsys.readouterr().out.splitlines()
    assert (name in "\n".join(lines)) == (width >= 67)
    assert "".join(line[1:].partition("│")[0].strip() for line in lines if line[:1] == "│").replace("b", "") == name
    assert max(len(line) for line in lines if line[:1] in "┏┃┡│└") <= width
