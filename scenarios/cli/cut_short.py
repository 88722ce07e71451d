"""What a person is told whose simulation ends before its command does: what stands, and which command goes on.

| What ended it                               | before its summary stands    | from then on                           |
|---------------------------------------------|------------------------------|----------------------------------------|
| Ctrl-C                                      | what was spent; goes on with | has ended; its report is made by       |
| an error of the system                      | the same                     | the same                               |
| want of silos (`DropoutError`)              | the same                     | cannot come                            |
| another error that fedmodel raises          | the error alone              | has ended; its report is made by       |

Guarantee: a command that "goes on" is said of a run alone that the same command takes up again, or begins where no
round was done (`scenarios.simulation.resuming`); never of one that has ended, which is known by its summary. An error
keeps its kind, and with it its exit status.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import typer

from fedmodel.errors import DropoutError, FedmodelError
from fedmodel.system.durable import failed
from scenarios.cli.printing import INTERRUPTED, err


@contextmanager
def told_what_stands(run_dir: Path, again: str, *, report: bool) -> Iterator[None]:
    """Have whatever ends a simulation and the making of its report say what stands, and what goes on.

    Args:
        run_dir: The run's folder.
        again: The command that takes the run up again, of `command_of`.
        report: Whether a report was asked for.
    """
    try:
        yield
    except BrokenPipeError:  # whoever read standard output has seen enough
        raise
    except KeyboardInterrupt:
        told = _has_ended(run_dir, report=report) or f"{_spent(run_dir)}; it goes on with:\n{again}"
        err.print(f"interrupted; {told}", soft_wrap=True, markup=False, highlight=False)
        raise typer.Exit(INTERRUPTED) from None
    except OSError as error:
        raise FedmodelError(f"{failed(error)}; {_told(run_dir, again, report=report)}") from error
    except FedmodelError as error:
        if isinstance(error, DropoutError) or _has_ended(run_dir, report=report):
            error.args = (f"{error}; {_told(run_dir, again, report=report)}",)  # of the same kind, and of its status
        raise


@contextmanager
def told_that_nothing_was_spent() -> Iterator[None]:
    """Have Ctrl-C say so, before a run has a folder."""
    try:
        yield
    except KeyboardInterrupt:
        err.print("interrupted before the run began; this command spent nothing")
        raise typer.Exit(INTERRUPTED) from None


def command_of(
    scenario: str,
    settings: Sequence[str],
    engine: str | None,
    device: str,
    folder: Path,
    *,
    report: bool,
    as_json: bool,
) -> str:
    """Return the command that takes a simulation up again, as it is typed into a shell."""
    words = ["fedmodel", "simulate", scenario, *(word for setting in settings for word in ("--set", setting))]
    words += [] if engine is None else ["--engine", engine]
    words += [] if device == "auto" else ["--device", device]
    words += ["--out", str(folder), *([] if report else ["--no-report"]), *(["--json"] if as_json else [])]
    return shlex.join(words)


def _told(run_dir: Path, again: str, *, report: bool) -> str:
    """Return what follows upon an error, in one line."""
    goes_on = f"{_spent(run_dir)}; once that is mended, it goes on with: {again}"
    return _has_ended(run_dir, report=report) or goes_on


def _spent(run_dir: Path) -> str:
    from scenarios.runs.event_book import BOOK, is_booked

    return f"what was spent stands in {run_dir / (BOOK if is_booked(run_dir) else 'ledgers')}"


def _has_ended(run_dir: Path, *, report: bool) -> str:
    """Return what is to be said of a run that has ended, nothing where it has not."""
    from scenarios.simulation.resuming import SUMMARY

    if not (run_dir / SUMMARY).exists():
        return ""
    made = f"; its report is made by: {shlex.join(['fedmodel', 'report', 'build', str(run_dir)])}" if report else ""
    return f"the run has ended, and its summary stands in {run_dir}{made}"
