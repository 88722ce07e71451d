"""Why a run's model is not attacked again where a report of its audit is read, and that no code is imported for it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fedmodel.config import Scenario, read_scenario
from fedmodel.kinds import bases
from scenarios.audit import black_box
from scenarios.audit.black_box import why_not_here
from scenarios.simulation.simulate import placed
from server.run_files import MODEL
from tests.bases import scenario_on


@pytest.fixture
def on_a_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scenario:
    """A run's scenario on a base, whose model is taken for one that fits."""
    (tmp_path / MODEL).touch()
    monkeypatch.setattr(black_box, "final_model", lambda *_: None)
    return placed(read_scenario(str(scenario_on(tmp_path))))


def test_what_a_model_is_attacked_with_is_here_or_is_named(on_a_base: Scenario, tmp_path: Path) -> None:
    assert why_not_here(on_a_base, tmp_path) is None
    (tmp_path / "texts" / "all.jsonl").unlink()
    assert "texts" in str(why_not_here(on_a_base, tmp_path))
    bases.lie_at({}, tmp_path)
    (sha256,) = [on_a_base.model.sha256]  # type: ignore[attr-defined]
    told = f"that needs the base of SHA-256 {sha256[:16]}...; name the folder of a copy: --base FOLDER"
    assert why_not_here(on_a_base, tmp_path) == told


@pytest.mark.parametrize("key", ["training.loss", "federation.strategy"])
def test_code_of_somebodys_own_is_named_and_not_run(key: str, on_a_base: Scenario, tmp_path: Path) -> None:
    section, name = key.split(".")
    said = getattr(on_a_base, section).model_copy(update={name: "nowhere_to_be_found:it"})
    told = why_not_here(on_a_base.model_copy(update={section: said}), tmp_path)
    assert told == (
        f"that needs {key} = 'nowhere_to_be_found:it', and code of somebody's own is never run to read a report"
    )


def test_a_figure_of_somebodys_own_is_not_needed(on_a_base: Scenario, tmp_path: Path) -> None:
    assert why_not_here(on_a_base.model_copy(update={"metrics": ("nowhere_to_be_found:it",)}), tmp_path) is None


@pytest.mark.parametrize("spoil", [lambda at: (at / MODEL).unlink(), lambda at: shutil.rmtree(at / "base")])
def test_a_run_that_left_no_model_lacks_nothing(
    on_a_base: Scenario, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(tmp_path)
    bases.lie_at({}, tmp_path)
    assert (why_not_here(on_a_base, tmp_path) is None) == (not (tmp_path / MODEL).exists())
