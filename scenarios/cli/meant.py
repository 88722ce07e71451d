"""What a person meant whose words the command does not know: one suggestion, or none.

    an option that a scenario has as a key          '--set rounds=VALUE'
    an option nearly as one of the command          '--engine'
    an option nearly as a key of a scenario         '--set privacy.epsilon=VALUE'
    a command nearly as one of those there are      'simulate'
    a command that stands under exactly one noun    'budget forecast'

A key is suggested only where the command takes `--set`, and only if no two sections have a key of that name.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, Final, get_args

import click

_LIKE: Final = 0.75
"""How alike two words are, between 0 and 1, for one to be suggested for the other: `engin` and `engine` are 0.91."""


def in_words(error: click.UsageError) -> str | None:
    """Return what is said of a word that the command does not know, in one line; None of another mistake."""
    if isinstance(error, click.NoSuchOption):
        found = _option(error.option_name, error.ctx)
    elif isinstance(error, click.exceptions.NoSuchCommand):
        found = _command(error.command_name, error.ctx)
    else:
        return None
    return error.message + ("" if found is None else f" Did you mean {found!r}?")


def _option(name: str, ctx: click.Context | None) -> str | None:
    """Return the option that is meant, or the setting."""
    if ctx is None:
        return None
    known = [word for one in ctx.command.get_params(ctx) for word in (*one.opts, *one.secondary_opts) if word[0] == "-"]
    options = {word.lstrip("-"): word for word in known if word.startswith("--")}
    said = name.lstrip("-")
    keys = _keys() if "--set" in known else {}
    key = said.replace("-", "_")
    if key not in keys:
        if near := _near(said, options):
            return options[near]
        key = _near(key, keys) or ""
    return f"--set {keys[key]}=VALUE" if key else None


def _command(name: str, ctx: click.Context | None) -> str | None:
    """Return the command that is meant."""
    if ctx is None or not isinstance(ctx.command, click.Group):
        return None
    nouns = ctx.command.commands
    if near := _near(name, nouns):
        return near
    under = [noun for noun, group in nouns.items() if isinstance(group, click.Group) and name in group.commands]
    return f"{under[0]} {name}" if len(under) == 1 else None


def _near(word: str, known: Iterable[str]) -> str | None:
    """Return the one known word that is most alike, if it is alike at all."""
    return next(iter(get_close_matches(word, known, n=1, cutoff=_LIKE)), None)


def _keys() -> dict[str, str]:
    """Return the keys of a scenario as they are set, by their path and, where one section alone has it, their name."""
    from fedmodel.config import Scenario

    paths: dict[str, set[str]] = {}
    for name, field in Scenario.model_fields.items():
        sections = _sections(field.annotation)
        for path in {f"{name}.{key}" for section in sections for key in section.model_fields} or {name}:
            paths.setdefault(path.rpartition(".")[2], set()).add(path)
    alone = {name: path for name, found in paths.items() for path in found if len(found) == 1}
    return {path: path for found in paths.values() for path in found} | alone


def _sections(annotation: Any) -> list[Any]:
    """Return the sections that a type holds, each kind of one that has several."""
    if hasattr(annotation, "model_fields"):
        return [annotation]
    return [found for part in get_args(annotation) for found in _sections(part)]
