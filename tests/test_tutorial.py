"""docs/tutorial.ipynb: its cells run, and the outputs that it keeps are of such a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import fedmodel as fm
from fedmodel.kinds import own_code

NOTEBOOK = Path(__file__).parents[1] / "docs" / "tutorial.ipynb"


def cells() -> list[dict[str, Any]]:
    found = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in found if cell["cell_type"] == "code"]


def test_outputs_are_kept_of_every_cell_in_order_and_none_is_an_error() -> None:
    found = cells()
    assert [cell["execution_count"] for cell in found] == list(range(1, len(found) + 1))
    outputs = [output for cell in found for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    shown = {kind for output in outputs for kind in output.get("data", {})}
    assert {"text/html", "image/png", "text/plain"} <= shown
    text = json.dumps(outputs)
    assert "round 10 of 10" in text  # the bar that a notebook shows stays
    assert "per record, at each silo" in text
    assert str(Path.home()) + "/" not in text


def test_its_cells_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    simulate = fm.simulate

    def once(*scenario: Any, **said: Any) -> fm.Run:
        """Simulate a round where the notebook does several."""
        if scenario:
            return simulate(scenario[0].with_(rounds=1), **said)
        return simulate(**{**said, "rounds": 1})

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fm, "simulate", once)
    names: dict[str, Any] = {"__name__": "__main__"}
    try:
        for number, cell in enumerate(cells()):
            exec(compile("".join(cell["source"]), f"cell {number}", "exec", dont_inherit=True), names)  # noqa: S102 - ours
    finally:
        own_code.close()
    assert names["low"].epsilon <= 1.0 < names["run"].epsilon <= 8.0


@pytest.mark.slow
def test_a_kernel_runs_it_from_top_to_bottom(tmp_path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    assert "round 10 of 10" in json.dumps(notebook)
