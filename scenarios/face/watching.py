"""Who watches a run that a script began, a terminal or a notebook, and what is said where it is interrupted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path


def watching(metrics: Path, rounds: int, *, progress: bool) -> AbstractContextManager[None]:
    """Return what shows a bar over rounds while it is open: in a notebook, at a terminal, or nothing.

    Args:
        metrics: The run's `metrics.jsonl`, which need not be there yet.
        rounds: How many there are to be.
        progress: Whether anything is to be shown.
    """
    if not progress:
        return nullcontext()
    from scenarios.face.notebook import in_notebook, notebook_progress

    if in_notebook():
        return notebook_progress(metrics, rounds)
    from rich.console import Console

    from scenarios.runs.progress import rounds_progress

    return rounds_progress(Console(stderr=True), metrics, rounds)


@contextmanager
def goes_on(folder: Path) -> Iterator[None]:
    """Have an interruption say how far the run came, how that is read, and what goes on."""
    try:
        yield
    except KeyboardInterrupt:
        from scenarios.runs.summary import read_metrics

        rounds = len(read_metrics(folder / "metrics.jsonl"))
        raise KeyboardInterrupt(
            f"interrupted after {rounds} whole rounds; fedmodel.Run.read({str(folder)!r}) reads them, and what was"
            f" spent; the same call goes on with out={str(folder)!r}"
        ) from None
