"""The command as click has it, made from the app: what Typer 0.20 leaves out of it under click 8.5 is put back.

| what                                   | why it is needed                                                          |
|----------------------------------------|---------------------------------------------------------------------------|
| help of positional arguments           | click 8.5 has a `help` of its own, with which it overwrites Typer's       |
| one suggestion (`scenarios.cli.meant`) | click and Typer both add one to an unknown command, and none is of a key  |
| files and scenarios in completion      | Typer's paths complete to nothing, and it warns of any other completion   |
"""

from __future__ import annotations

import inspect
from functools import partial

import click
import typer
from click.shell_completion import CompletionItem
from typer.main import get_command
from typer.models import ArgumentInfo
from typer.utils import get_params_from_function


def command_of(app: typer.Typer) -> click.Command:
    """Return an app as a command of click's, with help for every argument and without two suggestions for one word."""
    made = get_command(app)
    _mend(made)
    return made


def _mend(command: click.Command) -> None:
    """Put back what is left out of a command and of all that stand under it."""
    if isinstance(command, click.Group):
        command.suggest_commands = False  # type: ignore[attr-defined]  # of Typer's groups
        for one in command.commands.values():
            _mend(one)
    said = {} if command.callback is None else get_params_from_function(inspect.unwrap(command.callback))
    for parameter in command.params:
        about = said[parameter.name].default if parameter.name in said else None
        if isinstance(about, ArgumentInfo):
            parameter.help = about.help
        if parameter.name == "scenario":
            parameter.shell_complete = _scenarios  # type: ignore[method-assign, assignment]
        elif isinstance(parameter.type, click.Path):
            parameter.shell_complete = partial(_files, parameter.type)  # type: ignore[method-assign]


def _files(kind: click.Path, _: click.Context, incomplete: str) -> list[CompletionItem]:
    """Have the shell look for files, or for folders alone."""
    return [CompletionItem(incomplete, type="dir" if kind.dir_okay and not kind.file_okay else "file")]


def _scenarios(_: click.Context, incomplete: str) -> list[CompletionItem]:
    """Return the built-in scenarios that begin so, or have the shell look for files if none does."""
    from fedmodel.config import builtin_scenarios

    names = [CompletionItem(name) for name in builtin_scenarios() if name.startswith(incomplete)]
    return names or [CompletionItem(incomplete, type="file")]
