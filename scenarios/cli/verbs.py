"""How a file of this folder adds to the `fedmodel` command: it has `VERBS`, and nothing else names the file."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import typer

from fedmodel.system.kinds import kinds


class Verb(NamedTuple):
    """What a file adds to the command.

    Attributes:
        place: Where it stands among the commands, or among the nouns, in the help: the least first.
        name: What a person types.
        what: A command, or an app of the verbs of a noun.
    """

    place: int
    name: str
    what: Callable[..., object] | typer.Typer


def verbs() -> list[Verb]:
    """Return what all files of this folder add, in the order of the help.

    Raises:
        TypeError: When two are of one name.
    """
    found = sorted(
        (verb for module in kinds(__package__).values() for verb in getattr(module, "VERBS", ())),
        key=lambda verb: (verb.place, verb.name),
    )
    names = [verb.name for verb in found]
    for name in names:
        if names.count(name) > 1:
            raise TypeError(f"two files of {__package__} add {name!r} to the command; each name is one file's")
    return found
