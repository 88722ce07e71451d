"""Who watches a run that a script began, a terminal or a notebook, and what is said where it is interrupted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from fedmodel.system.counts import counted, one_or_more

if TYPE_CHECKING:
    from fedmodel.config import Scenario


def watching(metrics: Path, scenario: Scenario, *, progress: bool) -> AbstractContextManager[None]:
    """Return what shows a bar over rounds while it is open: in a notebook, or on standard error; or nothing.

    Args:
        metrics: The run's `metrics.jsonl`, which need not be there yet.
        scenario: What is run.
        progress: Whether anything is to be shown.
    """
    if not progress:
        return nullcontext()
    from scenarios.face.notebook import in_notebook, notebook_progress
    from scenarios.runs.progress import claimed, rounds_progress

    if in_notebook():
        return notebook_progress(metrics, scenario.rounds, claimed(scenario))
    from rich.console import Console

    return rounds_progress(Console(stderr=True), metrics, scenario.rounds, claimed(scenario))


@contextmanager
def goes_on(folder: Path) -> Iterator[None]:
    """Have an interruption say how far the run came, how that is read, and what goes on."""
    try:
        yield
    except KeyboardInterrupt:
        from scenarios.runs.summary import read_metrics

        rounds = len(read_metrics(folder / "metrics.jsonl"))
        raise KeyboardInterrupt(
            f"interrupted after {counted(rounds, 'whole round')}; fedmodel.Run.read({str(folder)!r}) reads"
            f" {one_or_more(rounds, 'it', 'them')}, and what was spent; the same call goes on with out={str(folder)!r}"
        ) from None
