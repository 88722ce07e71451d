"""How the command prints: answers on standard output, everything else on standard error.

Guarantee: whatever is printed through `out`, `err` and `answer` does nothing to a terminal but stand on it
(`fedmodel.system.inert`): no escape sequence but Rich's own, no direction, no link. Rich's markup is off, and so are
its names of emoji: a text with `[red]` or `[link=...]` in it shows just that. What is to have a style is a `Text` that
has it.

Where `--json` is asked for, the answer alone stands on standard output: whatever else is written there while the
command lasts, by code of a user's own, by a library or in a fork of this process, goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Annotated, Any, Final, TextIO

import click
import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from fedmodel.system.inert import inert_lines

INTERRUPTED: Final = 130
"""The exit status of what Ctrl-C ended."""

_stdout: TextIO | None = None  # where an answer goes while nothing else may


def _answer_alone(ctx: click.Context, _: click.Parameter, asked: bool) -> bool:
    """Keep standard output for the answer until the whole command ends, where JSON is asked for."""
    if asked and _stdout is None:
        ctx.find_root().with_resource(_kept_for_the_answer())
    return asked


Json = Annotated[bool, typer.Option("--json", callback=_answer_alone, help="Print one JSON object on standard output.")]


@contextmanager
def _kept_for_the_answer() -> Iterator[None]:
    """Lead what is written to standard output to standard error, all but answers; the descriptor too, which forks have.

    Where another stream stands in place of the process's own, as under a test, that alone is led so.
    """
    global _stdout
    before = sys.stdout
    kept = _moved() if before is not None and before is sys.__stdout__ and sys.stderr is not None else None
    _stdout = before if kept is None else kept
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _stdout = None
        if kept is not None:
            sys.stderr.flush()
            os.dup2(kept.fileno(), 1)
            kept.close()


def _moved() -> TextIO:
    """Lead descriptor 1 to where 2 leads, and return a stream to where it led before."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(kept, "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors)


class InertConsole(Console):
    """A console that shows text and its own styles, and lets no text do anything else."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False)

    def render_str(self, text: str, **how: Any) -> Text:
        """Turn a text into one that is laid out: as wide as it is shown."""
        return super().render_str(inert_lines(text), **how)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render something; every text that leaves the console comes through here, and every control code of Rich's."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(inert_lines(segment.text), segment.style)


out = InertConsole()
err = InertConsole(stderr=True)


def answer(document: Mapping[str, Any], line: str, as_json: bool) -> None:
    """Print an answer as JSON, or as a line for a person."""
    print(json_line(document) if as_json else inert_lines(line), file=_stdout, flush=True)


def json_line(document: Mapping[str, Any]) -> str:
    r"""Return an answer as JSON in printable ASCII; of what is no letter JSON itself would leave DEL alone.

    >>> json_line({"name": "\x1b[2J\x7f"})
    '{"name": "\\u001b[2J\\u007f"}'
    """
    return json.dumps(document).replace("\x7f", "\\u007f")
