"""The command at a terminal: help, suggestions, completion, and what it imports to say them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import click
import pytest

from scenarios.cli import main
from scenarios.cli.terminal import command_of

Ran = tuple[int, str, str]
Command = Callable[..., Ran]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Call the command in this process: its status, and what it printed on either stream."""

    def called(*words: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["fedmodel", *words])
        with pytest.raises(SystemExit) as ended:
            main.main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return called


def every(command: click.Command) -> Iterator[click.Command]:
    """Yield a command and all that stand under it."""
    yield command
    for one in command.commands.values() if isinstance(command, click.Group) else ():
        yield from every(one)


def test_every_argument_of_every_command_shows_its_help(command: Command) -> None:
    arguments = [
        (one.name, parameter.name, getattr(parameter, "help", None))
        for one in every(command_of(main.app))
        for parameter in one.params
        if isinstance(parameter, click.Argument)
    ]
    assert len(arguments) > 20
    assert [one for one in arguments if not one[2]] == []
    status, out, _ = command("ledger", "void", "-h")
    assert status == 0
    assert "A run that `budget show` lists, by its name" in out


def test_it_says_its_version_and_helps_by_either_word(command: Command) -> None:
    assert command("--version") == (0, f"fedmodel {version('fedmodel')}\n", "")
    assert command("-h") == command("--help")
    assert "--version" in command("-h")[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("simulate x --rounds 3", "No such option '--rounds'. Did you mean '--set rounds=VALUE'?"),
        ("simulate x --epsilon 3", "No such option '--epsilon'. Did you mean '--set privacy.epsilon=VALUE'?"),
        ("deploy-local x --local-steps=3", "'--local-steps'. Did you mean '--set training.local_steps=VALUE'?"),
        ("audit run x --privacy.delta 1", "'--privacy.delta'. Did you mean '--set privacy.delta=VALUE'?"),
        ("simulate x --epsilom 3", "No such option '--epsilom'. Did you mean '--set privacy.epsilon=VALUE'?"),
        ("simulate x --engin flower", "No such option '--engin'. Did you mean '--engine'?"),
        ("simulate x --zzz", "No such option '--zzz'.\n"),
        ("ledger verify x --epsilon 3", "No such option '--epsilon'.\n"),  # takes no --set
        ("simulat", "No such command 'simulat'. Did you mean 'simulate'?\n"),
        ("budget shwo", "No such command 'shwo'. Did you mean 'show'?\n"),
        ("forecast", "No such command 'forecast'. Did you mean 'budget forecast'?\n"),
        ("verify", "No such command 'verify'.\n"),  # of two nouns
    ],
)
def test_one_thing_is_suggested_or_none(command: Command, words: str, said: str) -> None:
    status, out, err = command(*words.split())
    assert (status, out) == (2, "")
    assert said in err
    assert err.count("Did you mean") == said.count("Did you mean")


@pytest.mark.parametrize("verb", ["simulate", "deploy-local", "audit plan"])
def test_without_a_scenario_those_on_board_are_listed(command: Command, verb: str) -> None:
    status, out, err = command(*verb.split())
    assert (status, out) == (2, "")
    assert "Missing argument 'SCENARIO'" in err
    assert "quickstart" in err
    assert "four hospitals, one breast-cancer classifier, epsilon 3" in err


def asked(words: list[str], **environment: str) -> str:
    """Start the installed command in an environment, and return what it printed."""
    stay = {name: value for name, value in os.environ.items() if name in ("PATH", "PYTHONPATH", "HOME", "LANG")}
    done = subprocess.run([*PROGRAM, *words], env={**stay, **environment}, capture_output=True, text=True, check=True)
    return done.stdout


PROGRAM = [sys.executable, "-m", "fedmodel"]


def test_help_imports_nothing_that_takes_seconds() -> None:
    words = "import sys, scenarios.cli.main; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert {"torch", "scipy", "sklearn", "flwr", "pydantic", "sqlite3"}.isdisjoint(done.stdout.split())


@pytest.mark.parametrize(
    ("typed", "following"),
    [
        ("fedmodel sim", {"simulate"}),
        ("fedmodel simulate ho", {"hospitals"}),
        ("fedmodel scenarios sh", {"show"}),
        ("fedmodel scenarios show di", {"digits"}),
        ("fedmodel budget ", {"epsilon", "calibrate", "show", "forecast"}),
        ("fedmodel simulate x --eng", {"--engine"}),
        ("fedmodel simulate x --engine ", {"in-process", "flower", "vectorised"}),
    ],
)
def test_each_shell_gets_the_words_that_could_follow(typed: str, following: set[str]) -> None:
    words = typed.split(" ")
    for shell, variables in {
        "bash": {"COMP_WORDS": typed, "COMP_CWORD": str(len(words) - 1)},
        "zsh": {"COMP_WORDS": typed, "COMP_CWORD": str(len(words) - 1)},
        "fish": {"COMP_WORDS": typed, "COMP_CWORD": words[-1]},
    }.items():
        lines = asked([], _FEDMODEL_COMPLETE=f"{shell}_complete", **variables).replace("plain\n", "plain,").splitlines()
        offered = {line.split(",")[1].split("\t")[0] for line in lines if line.startswith("plain,")}
        assert following <= offered, (shell, lines)
        assert all(word.startswith(words[-1]) for word in offered)


def test_a_path_is_completed_by_the_shell() -> None:
    for typed in ("fedmodel simulate ./sc", "fedmodel ledger verify ./sc", "fedmodel simulate x --out ./sc"):
        given = {"COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
        assert asked([], _FEDMODEL_COMPLETE="bash_complete", **given) == "file,./sc\n"


def test_each_shell_gets_its_script_and_bash_completes_by_it(tmp_path: Path) -> None:
    scripts = {shell: asked([], _FEDMODEL_COMPLETE=f"{shell}_source") for shell in ("bash", "zsh", "fish")}
    assert all(f"_FEDMODEL_COMPLETE={shell}_complete" in script for shell, script in scripts.items())
    (tmp_path / "fedmodel").write_text(f'#!/bin/sh\nexec {" ".join(PROGRAM)} "$@"\n')
    (tmp_path / "fedmodel").chmod(0o755)
    words = f"{scripts['bash']}\nCOMP_WORDS=(fedmodel simu); COMP_CWORD=1; _fedmodel_completion fedmodel"
    words += '; echo "${COMPREPLY[@]}"'
    stay = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", words], env=stay, capture_output=True, text=True, check=True)
    assert done.stdout == "simulate\n"


@pytest.mark.parametrize("value", ["bash_complete", "source_bash", "bash_", ""])
def test_a_variable_makes_no_verb_do_something_else(value: str) -> None:
    given = {"_FEDMODEL_COMPLETE": value, "COMP_WORDS": "fedmodel sim", "COMP_CWORD": "1"}
    assert asked(["--version"], **given) == f"fedmodel {version('fedmodel')}\n"
