"""Why silos of a simulation failed: the words of their own logs, which are its user's own here.

What a disk or a ledger failed with is told. Where none did, the first silo's own error is, with the path of its log:
the words of a refusal, which are of the model and the plan, and of any other error no more than its kind. Its words
stay in the log, since they could tell of a record, and what a terminal shows is copied further than a log is.

In a deployment a silo's log is its operator's alone, and of what stands in it nobody else learns more than a code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from fedmodel.errors import DropoutError, FedmodelError
from fedmodel.system.durable import replace_file

_MOST: Final = 3  # silos whose words fit into a line
# Behind the time: what was done, and an error of the ledger or of the system. What others say could tell of a record.
_ERROR: Final = re.compile(r"\S+ (\S+: (?:Ledger(?:Error|Tampered)|\w+Error: \[Errno \d+\]).+)")
# What is refused before anything is charged, or measured on made-up records; of what is neither, its kind.
_REFUSAL: Final = re.compile(r"\S+ (\S+: (?:Config|Privacy|Protocol)Error: .+)")
_KIND: Final = re.compile(r"\S+ (\S+: \w*(?:Error|Exception|Refused|Tampered))\b.*")


@contextmanager
def causes_told(logs: Path, silos: Sequence[str]) -> Iterator[None]:
    """Where a simulation ends for want of silos, have its error say what their disks and ledgers failed with.

    That is the last such error that each silo wrote into its own log meanwhile. Where none could write a line, it is
    what keeps the disk from taking one, if anything does. Of any other error it is the last of the first silo that
    wrote one. Under Flower, where an error comes back without its kind, one with such a cause is of the kind that it is
    in this process.

    Args:
        logs: The folder of a simulation's logs, a file a silo.
        silos: Whose.
    """
    places = {silo: logs / f"{silo}.log" for silo in silos}
    before = {silo: _size(path) for silo, path in places.items()}
    try:
        yield
    except FedmodelError as error:
        if type(error) not in (DropoutError, FedmodelError):  # under Flower its words are all that comes back
            raise
        grown = [silo for silo, path in places.items() if _size(path) > before[silo]]
        told = [f"{silo}: {said}" for silo in grown if (said := _last(_ERROR, places[silo], before[silo]))]
        for silo in () if told else grown:
            path, start = places[silo], before[silo]
            if said := _last(_REFUSAL, path, start) or _last(_KIND, path, start):
                told = [f"{silo}: {said} (its log is {path})"]
                break
        if not told and (obstacle := _obstacle(logs)):
            told = [f"no line of theirs can be written: {obstacle}"]
        if not told:
            raise
        more = f"; and {len(told) - _MOST} more" if len(told) > _MOST else ""
        raise DropoutError(f"{error}. {'; '.join(told[:_MOST])}{more}") from error


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _last(form: re.Pattern[str], path: Path, start: int) -> str:
    """Return the last error of a form in a log from a place on, without its time and its trace; empty for none."""
    lines = path.read_bytes()[start:].decode("utf-8", "replace").splitlines()
    return next((found[1] for line in reversed(lines) if (found := form.fullmatch(line))), "")


def _obstacle(logs: Path) -> str:
    """Return what keeps a folder from taking a file, empty where nothing does."""
    probe = logs / "probe"
    try:
        logs.mkdir(parents=True, exist_ok=True)
        replace_file(probe, bytes(1 << 16))
        probe.unlink()
    except OSError as error:
        return f"{logs}: {error.strerror}"
    return ""
