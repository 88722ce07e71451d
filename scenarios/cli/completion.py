"""Completion: how a shell asks this program for its script, or for words that could follow. Click answers.

A shell asks by variables, without a single argument:

    _FEDMODEL_COMPLETE=bash_source fedmodel      prints what bash is to evaluate (also: zsh, fish)
    _FEDMODEL_COMPLETE=bash_complete fedmodel    prints words that could follow what COMP_WORDS says was typed

Guarantee: a process that keeps these variables runs no verb: it prints and ends. Every other process of the command has
none of them (`scenarios.cli.entry`), so that no variable makes one do something else.

Nothing of third parties is imported until the environment is settled.
"""

from __future__ import annotations

import os
from typing import Final

_COMPLETE: Final = "_FEDMODEL_COMPLETE"
_ASKED: Final = frozenset(f"{shell}_{what}" for what in ("source", "complete") for shell in ("bash", "zsh", "fish"))
VARIABLES: Final = (_COMPLETE, "COMP_WORDS", "COMP_CWORD")
"""What a shell asks by."""


def is_asked(words: list[str]) -> bool:
    """Return whether a shell started this program with these arguments: with none, and with a word of ours."""
    return not words and os.environ.get(_COMPLETE) in _ASKED


def answer() -> int:
    """Print what the shell asks for, and return the exit status."""
    from click.shell_completion import shell_complete

    from scenarios.cli.main import app
    from scenarios.cli.terminal import command_of

    return shell_complete(command_of(app), {}, "fedmodel", _COMPLETE, os.environ[_COMPLETE])
