"""How the command prints: answers on standard output, everything else on standard error.

Guarantee: whatever is printed through `out`, `err` and `answer` does nothing to a terminal but stand on it
(`fedmodel.system.inert`): no escape sequence but Rich's own, no direction, no link. Rich's markup is off, and so are
its names of emoji: a text with `[red]` or `[link=...]` in it shows just that. What is to have a style is a `Text` that
has it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from fedmodel.system.inert import inert_lines

INTERRUPTED: Final = 130
"""The exit status of what Ctrl-C ended."""

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]


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
    print(json_line(document) if as_json else inert_lines(line))  # noqa: T201


def json_line(document: Mapping[str, Any]) -> str:
    r"""Return an answer as JSON in printable ASCII; of what is no letter JSON itself would leave DEL alone.

    >>> json_line({"name": "\x1b[2J\x7f"})
    '{"name": "\\u001b[2J\\u007f"}'
    """
    return json.dumps(document).replace("\x7f", "\\u007f")
