"""What a notebook shows while a run goes on: a bar over rounds, in the output of the cell.

It needs nothing but IPython, in which a notebook's cells run anyway: neither widgets nor a script in the page. What was
shown last stays in the notebook's file.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

from scenarios.runs.progress import BEFORE, followed
from scenarios.runs.summary import read_metrics


def in_notebook() -> bool:
    """Whether this process runs the cells of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


@contextmanager
def notebook_progress(metrics: Path, rounds: int, claim: str = "") -> Iterator[None]:
    """Show a bar over rounds in the cell's output, until the block ends; the last one stays."""
    from IPython.display import HTML, display

    done = len(read_metrics(metrics))  # of a run that is taken up again
    shown: Callable[..., Any] = display  # IPython's are untyped
    html: Callable[[str], Any] = HTML
    handle = shown(html(bar(done, rounds, BEFORE)), display_id=True)

    def show(done: int, text: str) -> None:
        handle.update(html(bar(done, rounds, text)))

    with followed(metrics, show, claim):
        yield


def bar(done: int, rounds: int, text: str) -> str:
    """Return a bar as HTML."""
    return (
        '<div style="font-family:monospace;white-space:pre-wrap">'
        f'<progress value="{done}" max="{rounds}" style="vertical-align:middle"></progress>'
        f" round {done} of {rounds}  {escape(text)}</div>"
    )
