"""What a person sees while a run goes on: a bar over rounds, fed from the run's own `metrics.jsonl`.

Both engines write that file, one of them from another process, so one way of watching serves both. Where standard
error is no terminal, as in a file, what a bar says is a plain line now and then instead: one a minute at most, and one
for each tenth of the rounds at most. Whoever draws elsewhere, as in a notebook, is told what a bar says (`followed`).
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from fedmodel.config import Scenario
from fedmodel.privacy.events import EXPERIMENT, IF_HIDDEN
from fedmodel.privacy.rounding import small, up
from scenarios.runs.summary import read_metrics
from server.metrics import epsilons_of

BEFORE: Final = "silos join and calibrate"
"""What a bar says before the first round is whole."""
_PERIOD_S = 0.2
_LINE_S: Final = 60.0  # between two lines, where no bar can be drawn
_LINES: Final = 10  # of a run, beside the first
_MANY: Final = 20  # silos, of whose number a bar says how fast they are trained
_UNSAFE = {EXPERIMENT: IF_HIDDEN, "seeded-unsafe": "SEEDED", "none-unsafe": "NO NOISE: protects nobody"}
_FIGURES: Final = ("loss", "accuracy", "rmse", "perplexity")
"""Those that a bar has room for, where a round's line has them."""


def claimed(scenario: Scenario) -> str:
    """Return what an epsilon is said with: the delta that it holds at, the largest of all silos, and of whom it is.

    >>> from fedmodel.config import read_scenario
    >>> claimed(read_scenario("quickstart"))
    'δ 0.001 per record'
    """
    own, shared = scenario.privacy.silo, scenario.privacy.delta
    named = [own[silo].delta if silo in own else None for silo in scenario.federation.silos]
    deltas = {shared if delta is None else delta for delta in named}
    return f"δ {'up to ' if len(deltas) > 1 else ''}{small(max(deltas))} per {scenario.privacy.unit}"


@contextmanager
def rounds_progress(console: Console, metrics: Path, rounds: int, claim: str = "") -> Iterator[None]:
    """Draw a bar with the loss, what else there is room for, the largest epsilon and the time left.

    Where the console is no terminal, say the same in plain lines, now and then.

    Args:
        console: Where to.
        metrics: The run's `metrics.jsonl`, which need not be there yet.
        rounds: How many there are to be.
        claim: What the epsilon is said with, of `claimed`.
    """
    done = len(read_metrics(metrics))  # of a run that is taken up again
    if not console.is_terminal:
        with followed(metrics, _NowAndThen(console, "round", rounds, done), claim, period_s=_LINE_S):
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
        task = progress.add_task(BEFORE, total=rounds, completed=done)

        def show(done: int, text: str) -> None:
            progress.update(task, completed=done, description=text)

        with followed(metrics, show, claim, between="\n"):  # beside a bar 80 columns have room for a part of it alone
            yield


class _NowAndThen:
    """Prints how far something is, in plain lines: none too soon after another, and few of many steps.

    Args:
        console: Where to.
        what: What is counted, as "round".
        steps: How many there are.
        done: How many were done before, of which nothing is said.
    """

    def __init__(self, console: Console, what: str, steps: int, done: int = 0) -> None:
        self._console, self._what, self._steps = console, what, steps
        self._begun = self._when = time.monotonic()
        self._next = done + 1

    def __call__(self, done: int, text: str) -> None:
        """Say that so many are done, if it is time for a line."""
        now = time.monotonic()
        if done < self._next or now - self._when < _LINE_S:
            return
        self._when, self._next = now, done + math.ceil(self._steps / _LINES)
        so_far = timedelta(seconds=int(now - self._begun))
        line = f"{self._what} {done} of {self._steps}: {text}  {so_far} so far"
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


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
def followed(
    metrics: Path,
    show: Callable[[int, str], object],
    claim: str = "",
    between: str = "  ",
    period_s: float = _PERIOD_S,
) -> Iterator[None]:
    """Have a run's newest round shown until the block ends, and once more then; of what cannot be read, nothing.

    Args:
        metrics: The run's `metrics.jsonl`, which need not be there yet.
        show: Called by another thread with how many rounds are done, and what to say of the last one.
        claim: What the epsilon is said with, of `claimed`.
        between: What stands between the parts of that.
        period_s: How long is waited between two looks, in seconds.
    """
    finished, newest = threading.Event(), Newest(metrics)

    def look(*, again: bool = False) -> None:
        with suppress(OSError):  # the run itself is told of a disk that fails
            if (found := newest.look(again=again)) is not None:
                show(found[0], line_in_words(found[1], claim, between))

    def follow() -> None:
        while not finished.wait(period_s):
            look()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()
        look(again=True)


def line_in_words(line: Mapping[str, Any], claim: str = "", between: str = "  ") -> str:
    """Return what a bar says of a round: its first figures, the largest epsilon, rounded up; of many silos, how fast.

    Args:
        line: Of `metrics.jsonl`.
        claim: What the epsilon is said with, of `claimed`.
        between: What stands between the parts.

    >>> line_in_words({"loss": 0.25, "accuracy": 0.5, "epsilon": {"a": 1.001, "b": 0.2}, "noise": "os"})
    'loss 0.250  accuracy 0.500  ε 1.01'
    >>> line_in_words({"loss": 0.25, "epsilon": [[1.001, 900]], "noise": "os", "summed": 900, "seconds": 0.5})
    'loss 0.250  ε 1.01  1,800 silos/s'
    >>> line_in_words({"loss": 0.25, "epsilon": {"a": 1.001}, "noise": "os"}, "δ 0.001 per record")
    'loss 0.250  ε 1.01 at δ 0.001 per record'
    """
    told = epsilons_of(line)
    bounds = [bound for bound in told if bound is not None]
    epsilon = None if len(bounds) < len(told) else max(bounds, default=0.0)
    holds = f" at {claim}" if claim and epsilon is not None else ""
    spent = [f"ε {up(epsilon, 2)}{holds}", *([_UNSAFE[line["noise"]]] if line["noise"] in _UNSAFE else [])]
    if "failed" in line:
        return between.join(["failed closed", *spent])
    many = line.get("summed", 0) >= _MANY and line["seconds"] > 0
    fast = [f"{line['summed'] / line['seconds']:,.0f} silos/s"] if many else []
    figures = "  ".join(f"{name} {line[name]:.3f}" for name in _FIGURES if name in line)
    return between.join([*([figures] if figures else []), *spent, *fast])


@contextmanager
def steps_progress(console: Console, steps: int) -> Iterator[Callable[[str], None]]:
    """Draw a bar over so many steps, or say it in plain lines; yield what is told each step's name when it begins."""
    begun = -1
    if not console.is_terminal:
        now_and_then = _NowAndThen(console, "step", steps)

        def saying(name: str) -> None:
            nonlocal begun
            begun += 1
            now_and_then(begun, f"next is {name}")

        yield saying
        return
    columns = (MofNCompleteColumn(), BarColumn(bar_width=16), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=steps)

        def watching(name: str) -> None:
            nonlocal begun
            begun += 1
            progress.update(task, completed=begun, description=name)

        yield watching
