"""The bar that a notebook shows, and when nothing is shown."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fedmodel.config import read_scenario
from scenarios.face import notebook
from scenarios.face.watching import goes_on, watching
from tests.scenarios.face.test_frames import LINE

TWO = read_scenario("quickstart", ["rounds=2"])


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stand in for IPython: what a cell's output shows, one after the other."""
    shown: list[str] = []

    def display(html: Any, display_id: bool) -> Any:
        assert display_id
        shown.append(html)
        return SimpleNamespace(update=shown.append)

    double = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=object()))
    monkeypatch.setitem(sys.modules, "IPython", double)
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(HTML=str, display=display))
    return shown


def test_a_notebooks_cell_shows_a_bar_that_ends_with_the_last_round(cell: list[str], tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with watching(path, TWO, progress=True):
        path.write_text("".join(json.dumps({**LINE, "round": number}) + "\n" for number in (1, 2)))
    assert "round 0 of 2" in cell[0]
    assert '<progress value="2" max="2"' in cell[-1]
    assert "loss 0.500  accuracy 0.750  ε 1.01 at δ 0.001 per record" in cell[-1]


def test_nothing_is_shown_where_none_is_wanted_or_nobody_looks(cell: list[str], tmp_path: Path) -> None:
    assert isinstance(watching(tmp_path / "m", TWO, progress=False), nullcontext)
    with watching(tmp_path / "m", TWO, progress=False):
        pass
    assert cell == []


def test_a_process_without_a_kernel_is_no_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert not notebook.in_notebook()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    assert not notebook.in_notebook()


def test_what_a_bar_says_is_escaped() -> None:
    assert "&lt;b&gt;" in notebook.bar(1, 2, "<b>")


def test_an_interruption_says_how_far_it_came_and_what_goes_on(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(json.dumps(LINE) + "\n")
    told = r"after 1 whole round; fedmodel.Run.read\(.*reads it, and .*goes on with out="
    with pytest.raises(KeyboardInterrupt, match=told):  # noqa: SIM117
        with goes_on(tmp_path):
            raise KeyboardInterrupt
