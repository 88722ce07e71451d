"""How the command prints: answers on standard output, everything else on standard error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.console import Console

out = Console()
err = Console(stderr=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]


def answer(document: Mapping[str, Any], line: str, as_json: bool) -> None:
    """Print an answer as JSON, or as a line for a person."""
    print(json.dumps(document) if as_json else line)  # noqa: T201
