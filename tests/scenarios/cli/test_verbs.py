"""Verbs are found in the files of a folder, each with its place in the help."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import typer
from typer.main import get_command

from scenarios.cli import main, verbs
from scenarios.cli.verbs import Verb


def found(monkeypatch: pytest.MonkeyPatch, **files: list[tuple[int, str]]) -> list[str]:
    modules: dict[str, Any] = {
        file: SimpleNamespace(VERBS=tuple(Verb(place, name, print) for place, name in said))
        for file, said in files.items()
    }
    monkeypatch.setattr(verbs, "kinds", lambda _: {**modules, "a-tool": SimpleNamespace()})
    return [verb.name for verb in verbs.verbs()]


def test_the_help_has_verbs_by_their_places(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(monkeypatch, one=[(30, "c"), (10, "z")], two=[(20, "b"), (20, "a")]) == ["z", "a", "b", "c"]


def test_a_name_is_one_files(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TypeError, match=r"two files of scenarios\.cli add 'a' to the command"):
        found(monkeypatch, one=[(10, "a")], two=[(20, "a")])


def test_the_command_has_what_its_files_say_commands_first() -> None:
    said = verbs.verbs()
    nouns = [verb.name for verb in said if isinstance(verb.what, typer.Typer)]
    commands = [verb.name for verb in said if not isinstance(verb.what, typer.Typer)]
    assert list(get_command(main.app).commands) == [*commands, *nouns]  # type: ignore[attr-defined]
    assert commands[0] == "simulate"
