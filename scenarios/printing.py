"""How the command prints: answers on standard output, everything else on standard error, figures rounded to be safe."""

from __future__ import annotations

import json
import math
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


def up(figure: float) -> str:
    """Return a figure to four decimals, rounded up: noise that suffices, an epsilon that holds."""
    return f"{math.ceil(figure * 10_000) / 10_000:.4f}" if math.isfinite(figure) else "unbounded"


def down(figure: float) -> str:
    """Return a figure to four decimals, rounded down: what is surely left."""
    return f"{math.floor(figure * 10_000) / 10_000:.4f}"
