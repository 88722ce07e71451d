"""What a person sees while a run goes on: a bar over rounds, fed from the run's own `metrics.jsonl`.

Both engines write that file, one of them from another process, so one way of watching serves both. Nothing is drawn
where standard error is no terminal. Whoever draws elsewhere, as in a notebook, is told what a bar says (`followed`).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from fedmodel.privacy.events import EXPERIMENT, IF_HIDDEN
from fedmodel.privacy.rounding import up
from scenarios.runs.summary import read_metrics
from server.metrics import epsilons_of

BEFORE: Final = "silos join and calibrate"
"""What a bar says before the first round is whole."""
_PERIOD_S = 0.2
_MANY: Final = 20  # silos, of whose number a bar says how fast they are trained
_UNSAFE = {EXPERIMENT: f" {IF_HIDDEN}", "seeded-unsafe": "  SEEDED", "none-unsafe": "  NO NOISE: protects nobody"}
_FIGURES: Final = ("loss", "accuracy", "rmse", "perplexity")
"""Those that a bar has room for, where a round's line has them."""


@contextmanager
def rounds_progress(console: Console, metrics: Path, rounds: int) -> Iterator[None]:
    """Draw a bar with the loss, what else there is room for, the largest epsilon and the time left."""
    if not console.is_terminal:
        yield
        return
    progress = Progress(
        TextColumn("round"),
        MofNCompleteColumn(),
        BarColumn(bar_width=16),
        TextColumn("{task.description}", markup=False),
        _Time(compact=True),
        console=console,
        transient=True,
    )
    with progress:
        done = len(read_metrics(metrics))  # of a run that is taken up again
        task = progress.add_task(BEFORE, total=rounds, completed=done)
        with followed(metrics, lambda done, text: progress.update(task, completed=done, description=text)):
            yield


class _Time(TimeRemainingColumn):
    """The time left; before a round tells of it, the time so far, so that something moves while models are measured."""

    def render(self, task: Task) -> Text:
        """Return what the column shows."""
        if task.time_remaining is None and not task.finished and task.elapsed is not None:
            return Text(f"{timedelta(seconds=int(task.elapsed))} so far", style="progress.elapsed")
        return super().render(task)


class Newest:
    """The newest line of a run's metrics, read and parsed only where there is one more: it may name thousands of silos.

    Args:
        metrics: The run's `metrics.jsonl`, which need not be there yet.
    """

    def __init__(self, metrics: Path) -> None:
        self._metrics, self._seen = metrics, 0

    def look(self, *, again: bool = False) -> tuple[int, Mapping[str, Any]] | None:
        """Return how many whole lines there are, and the last; None where there is none, or none that is new.

        Args:
            again: Whether the last is told once more.
        """
        size = self._metrics.stat().st_size if self._metrics.exists() else 0
        if not again and size == self._seen:
            return None
        self._seen = size
        lines = self._metrics.read_bytes().rpartition(b"\n")[0].splitlines() if size else []
        return (len(lines), json.loads(lines[-1])) if lines else None


@contextmanager
def followed(metrics: Path, show: Callable[[int, str], object]) -> Iterator[None]:
    """Have a run's newest round shown until the block ends, and once more then.

    Args:
        metrics: The run's `metrics.jsonl`, which need not be there yet.
        show: Called by another thread with how many rounds are done, and what to say of the last one.
    """
    finished, newest = threading.Event(), Newest(metrics)

    def look(*, again: bool = False) -> None:
        if (found := newest.look(again=again)) is not None:
            show(found[0], line_in_words(found[1]))

    def follow() -> None:
        while not finished.wait(_PERIOD_S):
            look()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()
        look(again=True)


def line_in_words(line: Mapping[str, Any]) -> str:
    """Return what a bar says of a round: its first figures, the largest epsilon, rounded up; of many silos, how fast.

    >>> line_in_words({"loss": 0.25, "accuracy": 0.5, "epsilon": {"a": 1.001, "b": 0.2}, "noise": "os"})
    'loss 0.250  accuracy 0.500  ε 1.01'
    >>> line_in_words({"loss": 0.25, "epsilon": [[1.001, 900]], "noise": "os", "summed": 900, "seconds": 0.5})
    'loss 0.250  ε 1.01  1,800 silos/s'
    """
    told = epsilons_of(line)
    bounds = [bound for bound in told if bound is not None]
    epsilon = None if len(bounds) < len(told) else max(bounds, default=0.0)
    spent = f"ε {up(epsilon, 2)}{_UNSAFE.get(line['noise'], '')}"
    if "failed" in line:
        return f"failed closed  {spent}"
    many = line.get("summed", 0) >= _MANY and line["seconds"] > 0
    fast = [f"{line['summed'] / line['seconds']:,.0f} silos/s"] if many else []
    return "  ".join([*(f"{name} {line[name]:.3f}" for name in _FIGURES if name in line), spent, *fast])


@contextmanager
def steps_progress(console: Console, steps: int) -> Iterator[Callable[[str], None]]:
    """Draw a bar over so many steps, and yield what is told each step's name when it begins."""
    if not console.is_terminal:
        yield lambda _: None
        return
    columns = (MofNCompleteColumn(), BarColumn(bar_width=16), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=steps)
        begun = -1

        def watching(name: str) -> None:
            nonlocal begun
            begun += 1
            progress.update(task, completed=begun, description=name)

        yield watching
