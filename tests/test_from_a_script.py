"""The scripts of `examples/`: plain and private ones run, and the page shows how they differ."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import fedmodel as fm
from docs.from_a_script import EXAMPLES, PAGE, difference, with_differences
from fedmodel.kinds import own_code

ROOT = Path(__file__).parents[1]
SCRIPTS = [(name, kind) for name in EXAMPLES for kind in ("plain", "private")]


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    yield
    own_code.close()


def run(name: str, kind: str, text: str) -> dict[str, Any]:
    """Run a script as its user would, and return its names."""
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(text, f"examples/{name}/{kind}.py", "exec", dont_inherit=True), names)  # noqa: S102 - our own
    return names


def text_of(name: str, kind: str) -> str:
    return (ROOT / "examples" / name / f"{kind}.py").read_text(encoding="utf-8")


def test_the_page_shows_the_scripts_as_they_are() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert with_differences(page) == page


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_private_script_is_a_plain_one_with_some_ten_lines_more(name: str) -> None:
    changed = [line for line in difference(name).splitlines() if re.match(r"[+-](?![+-]{2} )", line)]
    more = sum(line.startswith("+") for line in changed)
    assert more - sum(line.startswith("-") for line in changed) <= 12
    assert more <= 26
    assert not any(line[1:].lstrip().startswith(("class ", "def ")) for line in changed)


@pytest.mark.parametrize(("name", "kind"), SCRIPTS)
def test_a_script_runs_for_a_round(
    name: str, kind: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    simulate = fm.simulate
    monkeypatch.setattr(fm, "simulate", lambda **said: simulate(**{**said, "rounds": 1}))
    run(name, kind, re.sub(r"^EPOCHS = \d+$", "EPOCHS = 1", text_of(name, kind), flags=re.MULTILINE))
    assert re.search(r"^(accuracy|R2) -?\d", capsys.readouterr().out, flags=re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), SCRIPTS)
def test_a_script_learns_as_it_stands(name: str, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Chance is a tenth of the images, half of the texts and an R2 of 0; noise at epsilon 8 leaves far more."""
    names = run(name, kind, text_of(name, kind))
    found = re.search(r"^(?:accuracy|R2) (\d\.\d+)$", capsys.readouterr().out, flags=re.MULTILINE)
    assert found is not None
    assert float(found[1]) > {"images": 0.5, "text": 0.7, "table": 0.1}[name]
    if kind == "private":
        assert names["run"].epsilon <= 8.0
