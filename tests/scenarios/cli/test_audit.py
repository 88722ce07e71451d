"""What a person is told of an audit before it runs, and where it is cut short."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

import pytest

from fedmodel.audit.plan import Plan, SiloCanaries
from scenarios.audit import carrying
from scenarios.cli import main
from scenarios.cli.audit import _told

SILO = SiloCanaries("north", 60, 1.0, 0.01, 40, 1, 3.0, 1e-5, 0.5)


def plan(needed: int) -> Plan:
    return Plan("ab" * 32, "probe", (SILO,), guesses=50, significance=0.05, needed=needed, power=0.25)


def test_where_no_number_of_right_guesses_could_refute_that_is_said() -> None:
    assert "50 guesses, of which 48 right refute epsilon 3.0000 at delta 0.00001" in _told(plan(48))
    assert "50 guesses, of which 50 right refute epsilon" in _told(plan(50))
    none = _told(plan(51))  # one more than there are
    assert "50 guesses, of which no number that is right could refute epsilon 3.0000" in none
    assert "51" not in none


def audited(monkeypatch: pytest.MonkeyPatch, scenario: Path, out: Path) -> int:
    """Call `audit run` into a folder, and return the exit status."""
    monkeypatch.setattr(
        sys, "argv", ["fedmodel", "audit", "run", str(scenario), "--canaries", "600", "--out", str(out)]
    )
    with pytest.raises(SystemExit) as ended:
        main.main()
    return int(ended.value.code or 0)


def test_a_folder_that_is_taken_is_refused_before_anything_is_planned(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def planned(*_: object) -> NoReturn:
        raise AssertionError("it was planned")

    monkeypatch.setattr("scenarios.audit.planning.planned", planned)
    out = tmp_path / "taken"
    out.mkdir()
    (out / "notes.txt").write_text("mine", encoding="utf-8")
    for place in (out, out / "notes.txt"):
        assert audited(monkeypatch, tiny_file, place) == 2
        told = capsys.readouterr()
        assert (told.out, " ".join(told.err.split())) == (
            "",
            f"error: --out {place}: is not an empty folder; a run never writes over another",
        )
    assert [one.name for one in out.iterdir()] == ["notes.txt"]
    with pytest.raises(AssertionError, match="it was planned"):
        audited(monkeypatch, tiny_file, tmp_path / "new")


def test_an_audit_that_is_cut_short_says_what_stands_and_that_it_is_not_taken_up_again(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def cut_short(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(carrying, "carried", cut_short)
    monkeypatch.setattr(carrying, "check_power", lambda plan: None)
    assert audited(monkeypatch, tiny_file, tmp_path / "run") == 130
    assert capsys.readouterr().err == (
        f"interrupted; what was spent stands in {tmp_path / 'run' / 'ledgers'}. An audit is not taken up again: begin"
        " it anew, in another folder\n"
    )
