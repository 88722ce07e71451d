"""Commands on hostile names: whatever a folder, a file or a silo's error is called, a terminal only shows it."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from clients.silo import Silo
from fedmodel import wire
from fedmodel.config import Scenario
from fedmodel.system.inert import inert, inert_lines
from scenarios.cli.printing import InertConsole, answer
from tests.conftest import TINY
from tests.fakes import FaultyGrid
from tests.scenarios.cli.test_main import Run

ACTING = "a\x1b[2J\x1b]8;;http:⁄⁄x\x07b\rc\x9b31m\u202ed\u2066\u200b\ufeff\u2028[red]e\n\x1b[1mforged: all is well"


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def fedmodel(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command, called in this process from a folder: its status and what it printed."""
    monkeypatch.setenv("COLUMNS", "400")

    def called(*arguments: str, within: Path) -> tuple[int, str, str]:
        run = Run(monkeypatch, capsys, within)
        return run(*arguments), run.out, run.err

    return called


def as_a_program(*arguments: str, within: Path) -> tuple[int, str, str]:
    """The same as a person does it, with a terminal's encoding."""
    command = [str(Path(sys.executable).parent / "fedmodel"), *arguments]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8", "COLUMNS": "400"}
    found = subprocess.run(command, cwd=within, env=environment, capture_output=True, check=False, timeout=300)
    return found.returncode, found.stdout.decode(), found.stderr.decode()


def is_plain(printed: str) -> bool:
    return inert_lines(printed) == printed and not any(line.startswith("forged") for line in printed.split("\n"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / ACTING
    path.mkdir()
    return path


@pytest.mark.parametrize("verb", ["report verify", "report build", "silo policy", "authority show", "server status"])
def test_a_folder_of_any_name_is_refused_in_a_line_that_only_says_it(
    fedmodel: Command, verb: str, folder: Path
) -> None:
    status, said, why = fedmodel(*verb.split(), folder.name, within=folder.parent)
    assert status == 2
    assert said == ""
    assert inert(ACTING) in why
    assert is_plain(why)
    assert len(why.rstrip("\n").split("\n")) == 1


@pytest.mark.parametrize("words", [("report", "verify", ACTING), ("ledger", "verify", f"{ACTING}.sqlite")])
def test_a_program_of_its_own_says_and_ends_the_same(fedmodel: Command, words: tuple[str, ...], folder: Path) -> None:
    told = as_a_program(*words, within=folder.parent)
    assert told == fedmodel(*words, within=folder.parent)
    assert told[0] in (2, 4)
    assert is_plain(told[2])


def test_a_ledger_of_any_name_is_refused_in_a_line_and_its_json_is_ascii(fedmodel: Command, folder: Path) -> None:
    status, _, why = fedmodel("ledger", "verify", str(folder / "x.sqlite"), within=folder)
    assert status == 2
    assert inert(ACTING) in why
    assert is_plain(why)
    (folder / "\x7f.sqlite").write_bytes(b"no ledger")
    status, said, why = fedmodel("ledger", "verify", str(folder / "\x7f.sqlite"), "--json", within=folder)
    assert status == 4
    assert is_plain(said + why)
    assert said.isascii()


def test_a_ledger_and_a_run_in_a_folder_of_any_name_are_told_in_lines_of_ours(
    fedmodel: Command, tiny: Scenario, folder: Path, tmp_path: Path
) -> None:
    grid = FaultyGrid(tiny, folder)
    (reply,) = grid.send_and_receive([grid.asked(wire.join_request(), wire.JOIN, 2)])
    assert not reply.has_error()
    status, said, why = fedmodel("ledger", "verify", f"{ACTING}/ledgers/north.sqlite", within=tmp_path)
    assert (status, why) == (0, "")
    assert said.startswith(f"{inert(ACTING)}/ledgers/north.sqlite: ")
    assert is_plain(said)
    assert len(said.rstrip("\n").split("\n")) == 1


def test_an_argument_that_is_refused_is_shown_and_does_nothing(fedmodel: Command, tmp_path: Path) -> None:
    for arguments in (["budget", "epsilon", "--steps", ACTING], ["budget", f"--{ACTING}"], [ACTING]):
        status, said, why = fedmodel(*arguments, within=tmp_path)
        assert status == 2
        assert said == ""
        assert is_plain(why.replace("\nforged", "\n forged").replace("\\n\\x1b[1mforged", "")), why


def test_a_scenario_says_nothing_that_acts(fedmodel: Command, tiny_file: Path) -> None:
    """Names are of letters, digits and hyphens; a summary, of any letters."""
    text = tiny_file.read_text(encoding="utf-8")
    for written, key in ((r"three \u001b[2J", "summary"), (r"three \u202e silos", "summary"), (r"a\nb", "summary")):
        tiny_file.write_text(text.replace("three silos, two rounds, a linear model", written), encoding="utf-8")
        status, said, why = fedmodel("simulate", str(tiny_file), within=tiny_file.parent)
        assert (status, said) == (2, "")
        assert key in why
        assert is_plain(why)
    tiny_file.write_text(text.replace('"north"', r'"no\u001b[2Jrth"'), encoding="utf-8")
    status, said, why = fedmodel("simulate", str(tiny_file), within=tiny_file.parent)
    assert (status, said) == (2, "")
    assert is_plain(why)
    tiny_file.write_text(text, encoding="utf-8")
    status, said, why = fedmodel("simulate", str(tiny_file), "--set", f"name={ACTING}", within=tiny_file.parent)
    assert (status, said) == (2, "")
    assert is_plain(why)


def test_what_breaks_a_silo_stands_in_its_log_as_lines_of_one_error(
    tiny: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database's error, or a row of a table, is whoever's words they are."""

    def fails(_: Silo) -> object:
        raise ValueError(ACTING)

    monkeypatch.setattr(Silo, "records", fails)
    grid = FaultyGrid(tiny, tmp_path)
    (reply,) = grid.send_and_receive([grid.asked(wire.join_request(), wire.JOIN, 2)])
    assert wire.refusal_code(reply.error) == "internal"
    log = (tmp_path / "logs" / "north.log").read_text(encoding="utf-8")
    assert inert_lines(log) == log
    first, *trace = log.rstrip("\n").split("\n")
    assert first.endswith(f"ValueError: {inert(ACTING)}")
    assert trace
    assert all(line.startswith("  ") for line in trace)


def test_the_console_shows_markup_and_escapes_as_text_and_its_own_styles_as_styles(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.table import Table
    from rich.text import Text

    console = InertConsole()
    table = Table.grid()
    table.add_row(Text(ACTING, "bold"), f"[link=http://x]{ACTING}[/link] :smile:")
    console.print(table)
    console.print(f"[bold]{ACTING}", style="red")
    answer({"name": ACTING}, f"a line {ACTING}", as_json=False)
    answer({"name": f"{ACTING}\x7f"}, "", as_json=True)
    printed = capsys.readouterr().out
    assert inert_lines(printed) == printed
    assert "[bold]a" in printed
    assert "[link=http" in printed
    assert ":smile:" in printed

    monkeypatch.setenv("FORCE_COLOR", "1")
    InertConsole().print(Text(ACTING, "bold"), "[bold]")
    printed = capsys.readouterr().out
    assert "\x1b[1m" in printed
    printed = re.sub(r"\x1b\[[0-9;]*m", "", printed)
    assert inert_lines(printed) == printed


def test_a_crash_that_nobody_foresaw_is_shown_without_acting(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from scenarios.cli import main

    def crashes(**_: object) -> None:
        raise RuntimeError(ACTING)

    monkeypatch.setattr(main, "command_of", lambda _: crashes)
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    before = logging.root.handlers[:]
    try:
        with pytest.raises(RuntimeError) as crash:
            main.main()
        sys.excepthook(crash.type, crash.value, crash.tb)
    finally:
        logging.root.handlers[:] = before
    printed = capsys.readouterr().err
    assert "RuntimeError: a\\x1b" in printed
    assert inert_lines(printed) == printed


LOUD = """
import os

import torch

print("as it is imported")


class Net(torch.nn.Module):
    def __init__(self, shape):
        print("as it is made")
        super().__init__()
        self.layer = torch.nn.Linear(shape.features[0], shape.outputs)

    def forward(self, x):
        print("as it is called")
        os.write(1, b"by its number\\n")
        return self.layer(x)
"""

BESIDE = ["before", "of a fork", "by its number", "for a person", "after"]
ANSWERING = """
import multiprocessing, os, sys, typer
from scenarios.cli.printing import Json, answer, out

app = typer.Typer()

@app.command()
def one(as_json: Json = False) -> None:
    print("before")
    fork = multiprocessing.get_context("fork").Process(target=lambda: print("of a fork", flush=True))
    fork.start(), fork.join()
    os.write(1, b"by its number\\n")
    out.print("for a person")
    answer({"said": "J\u00e4"}, "said", as_json)
    print("after")

@app.command()
def other() -> None:
    pass

try:
    app(sys.argv[1:], standalone_mode=False)
finally:
    print("when it has ended")
"""


@pytest.mark.parametrize("closed", [False, True])
def test_where_json_is_asked_for_the_answer_alone_stands_on_standard_output(tmp_path: Path, closed: bool) -> None:
    (tmp_path / "answering.py").write_text(ANSWERING)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    command = ["sh", "-c", f'exec "$@" {"2>&-" if closed else ""}', "sh", sys.executable, "-u", "answering.py", "one"]

    def called(*more: str) -> tuple[list[str], list[str]]:
        found = subprocess.run([*command, *more], cwd=tmp_path, env=environment, capture_output=True, timeout=300)
        assert found.returncode == 0, found.stderr
        return found.stdout.decode().splitlines(), found.stderr.decode().splitlines()

    said, aside = called("--json")
    assert '{"said": "J\\u00e4"}' in said
    assert aside == ([] if closed else BESIDE)
    if not closed:
        assert len(said) == 2
        assert called() == ([*BESIDE[:-1], "said", "after", "when it has ended"], [])


def test_what_code_of_a_users_own_prints_is_no_part_of_an_answer_in_json(tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text(LOUD)
    (tmp_path / "loud.toml").write_text(TINY.replace('kind = "mlp"', 'use = "loud:Net"'))
    status, said, aside = as_a_program("simulate", "loud.toml", "--no-report", "--json", within=tmp_path)
    assert status == 0, aside
    assert json.loads(said)["rounds_completed"] == 2
    assert set(aside.splitlines()) == {
        "as it is imported", "as it is made", "as it is called", "by its number",
    }  # fmt: skip
