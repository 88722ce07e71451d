"""The hour of docs/hour.md, played: from three CSV files to a signed report and a model in use.

It takes minutes, so it is of the slow tier: `pytest -m slow tests/test_hour.py`.
"""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs import hour
from tests import tools
from tests.hour import tables


def test_the_tables_are_what_their_program_writes(tmp_path: Path) -> None:
    tables.write(tmp_path)
    for hospital in tables.HOSPITALS:
        name = f"{hospital.name}.csv"
        assert (tmp_path / name).read_bytes() == (tables.FOLDER / name).read_bytes()


def test_the_page_keeps_what_each_command_printed() -> None:
    silent = ("cat >", "cp ", "for ", "(umask", "RUN=", "AUTHORITY=", "fedmodel server start")
    kept = [pair for fence in hour.kept(hour.PAGE.read_text(encoding="utf-8")) for pair in fence]
    assert len(kept) > 20
    for command, output in kept:
        assert output.strip() or command.startswith(silent), f"run `python -m docs.hour`: nothing beneath {command}"


def test_a_command_goes_on_behind_its_sign_and_nowhere_else() -> None:
    page = "```console\n$ one \\\n>   more\nprinted\n> printed too\n$ cat <<'END'\n>\n> x\n> END\n```\n"
    commands = ["one \\\n  more", "cat <<'END'\n\nx\nEND"]
    assert hour.kept(page) == [list(zip(commands, ["printed\n> printed too\n", ""], strict=True))]
    written = hour.written(page, [[hour.Played(command, 0, "new") for command in commands]])
    assert written == "```console\n$ one \\\n>   more\nnew\n$ cat <<'END'\n>\n> x\n> END\nnew\n```\n"


@pytest.mark.parametrize(
    ("command", "status", "well"),
    [("a", 0, True), ("a", 2, False), ("a # exit status 2", 2, True), ("a # exit status 2", 0, False)],
)
def test_a_command_ends_as_the_page_says(command: str, status: int, well: bool) -> None:
    assert hour.Played(command, status, "").as_said is well


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hour-") as name:
        yield Path(name)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@tools.needed("age")
def test_the_hour_goes_as_its_page_says(folder: Path) -> None:
    played = [one for fence in hour.play(folder, hour.PAGE.read_text(encoding="utf-8")) for one in fence]
    wrong = [one for one in played if not one.as_said]
    assert not wrong, "\n".join(f"{one.status}  $ {one.command}\n{one.output}" for one in wrong)
    scored = list(csv.DictReader(io.StringIO((folder / "scores.csv").read_text(encoding="utf-8"))))
    patients = list(csv.DictReader(io.StringIO((folder / "held-out.csv").read_text(encoding="utf-8"))))
    assert [row["id"] for row in scored] == [row["patient_id"] for row in patients]
    (run,) = (folder / "kits" / "server" / "runs").iterdir()
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert summary["rounds_completed"] == 30
    assert not summary["dropouts"]
    assert {row["silo"]: row["epsilon"] <= 5.0 for row in summary["privacy"]} == dict.fromkeys(
        ("north", "south", "west"), True
    )
    assert summary["metrics"]["auroc"] > 0.75, "there is something to be learnt, and it was not"
    right = [
        row["predicted"] == patient["readmitted"]
        for row, patient in zip(scored, patients, strict=True)
        if row["predicted"]
    ]
    assert sum(right) > 0.65 * len(right)
