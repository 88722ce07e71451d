"""What is said where a simulation ends before its command does is true of what the same command would then do."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
import typer

from fedmodel.errors import ClaimRefuted, ConfigError, DropoutError, FedmodelError, LedgerError, LedgerTampered
from scenarios.cli import main
from scenarios.cli.cut_short import told_what_stands

AGAIN = "fedmodel simulate tiny.toml --out 'a run'"
FULL = OSError(28, "No space left on device", "/d/file")


def end(folder: Path, error: BaseException, *, ended: bool, report: bool = True) -> None:
    """End a simulation with an error, after its summary or before."""
    if ended:
        (folder / "summary.json").write_text("{}", encoding="utf-8")
    with told_what_stands(folder, AGAIN, report=report):
        raise error


def whole(folder: Path) -> str:
    return f"the run has ended, and its summary stands in {folder}"


def reported(folder: Path) -> str:
    return f"{whole(folder)}; its report is made by: fedmodel report build {shlex.quote(str(folder))}"


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (FULL, FedmodelError, "/d/file: No space left on device"),
        (PermissionError(13, "Permission denied", "/d"), FedmodelError, "/d: Permission denied"),
        (OSError(24, "Too many open files"), FedmodelError, "Too many open files"),
        (DropoutError("too few. north: full"), DropoutError, "too few. north: full"),
    ],
)
def test_a_run_that_has_not_ended_goes_on_with_its_command(
    error: Exception, kind: type[FedmodelError], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(kind) as told:
        end(tmp_path, error, ended=False)
    spent = f"what was spent stands in {tmp_path / 'ledgers'}; once that is mended, it goes on with: {AGAIN}"
    assert str(told.value) == f"{reason}; {spent}"


@pytest.mark.parametrize("kind", [ConfigError, LedgerError, LedgerTampered, ClaimRefuted, FedmodelError])
def test_of_what_no_command_may_mend_nothing_is_promised(kind: type[FedmodelError], tmp_path: Path) -> None:
    with pytest.raises(kind, match=r"^why$"):
        end(tmp_path, kind("why"), ended=False)


@pytest.mark.parametrize("kind", [ConfigError, DropoutError, LedgerError, LedgerTampered, ClaimRefuted, FedmodelError])
def test_of_a_run_that_has_ended_it_is_said_and_the_error_keeps_its_kind(
    kind: type[FedmodelError], tmp_path: Path
) -> None:
    folder = tmp_path / "a run"
    folder.mkdir()
    with pytest.raises(kind) as told:
        end(folder, kind("why"), ended=True)
    assert str(told.value) == f"why; {reported(folder)}"
    assert type(told.value) is kind


@pytest.mark.parametrize(("report", "words"), [(True, reported), (False, whole)])
def test_a_run_that_has_ended_never_goes_on(report: bool, words: Callable[[Path], str], tmp_path: Path) -> None:
    with pytest.raises(FedmodelError) as told:
        end(tmp_path, FULL, ended=True, report=report)
    assert str(told.value) == f"/d/file: No space left on device; {words(tmp_path)}"


@pytest.mark.parametrize("ended", [False, True])
def test_ctrl_c_says_the_same(ended: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as left:
        end(tmp_path, KeyboardInterrupt(), ended=ended)
    assert left.value.exit_code == 130
    spent = f"what was spent stands in {tmp_path / 'ledgers'}; it goes on with:\n{AGAIN}"
    assert capsys.readouterr().err == f"interrupted; {reported(tmp_path) if ended else spent}\n"


def test_a_reader_who_has_seen_enough_is_told_nothing(tmp_path: Path) -> None:
    with pytest.raises(BrokenPipeError) as left:
        end(tmp_path, BrokenPipeError(32, "Broken pipe"), ended=True)
    assert str(left.value) == "[Errno 32] Broken pipe"


def test_where_the_report_fails_the_command_that_makes_it_is_told(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    typed = ["fedmodel", "simulate", str(tiny_file), "--json", "--out", "a run"]
    monkeypatch.setattr(sys, "argv", typed)
    with mock.patch("scenarios.report.illustrated.write_report", side_effect=FULL), pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 1
    out, err = capsys.readouterr()
    assert json.loads(out).items() >= json.loads((tmp_path / "a run/summary.json").read_text()).items()
    reason, _, command = err.splitlines()[-1].partition("; its report is made by: ")
    assert reason == f"error: /d/file: No space left on device; {whole(tmp_path / 'a run')}"
    assert shlex.split(command) == ["fedmodel", "report", "build", str(tmp_path / "a run")]
    monkeypatch.setattr(sys, "argv", typed)  # the run has ended indeed
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 2
