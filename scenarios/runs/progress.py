"""What a person sees while a run goes on: a bar over rounds, fed from the run's own `metrics.jsonl`.

Both engines write that file, one of them from another process, so one way of watching serves both. Nothing is drawn
where standard error is no terminal.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fedmodel.privacy.rounding import up

_PERIOD_S = 0.2
_UNSAFE = {"seeded-unsafe": "  SEEDED", "none-unsafe": "  NO NOISE: protects nobody"}


@contextmanager
def rounds_progress(console: Console, metrics: Path, rounds: int) -> Iterator[None]:
    """Draw a bar with loss, accuracy, the largest epsilon and the time left, until the block ends."""
    if not console.is_terminal:
        yield
        return
    from scenarios.runs.summary import read_metrics

    progress = Progress(
        TextColumn("round"),
        MofNCompleteColumn(),
        BarColumn(bar_width=16),
        TextColumn("{task.description}", markup=False),
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
    )
    finished = threading.Event()
    with progress:
        done = len(read_metrics(metrics))  # of a run that is taken up again
        task = progress.add_task("silos join and calibrate", total=rounds, completed=done)

        def follow() -> None:
            while not finished.wait(_PERIOD_S):
                lines = read_metrics(metrics)
                if lines:
                    last = lines[-1]
                    told = last["epsilon"].values()
                    epsilon = None if None in told else max(told, default=0.0)
                    unsafe = _UNSAFE.get(last["noise"], "")
                    if "failed" in last:
                        progress.update(
                            task, completed=len(lines), description=f"failed closed  ε {up(epsilon, 2)}{unsafe}"
                        )
                        continue
                    figures = f"loss {last['loss']:.3f}  accuracy {last['accuracy']:.3f}  ε {up(epsilon, 2)}{unsafe}"
                    progress.update(task, completed=len(lines), description=figures)

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            finished.set()
            thread.join()


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
