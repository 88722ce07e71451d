"""What a run's folder says of itself, read with the types that it must have: `summary.json` and its files of lines.

Guarantee: whatever lies at these places, what is returned has every field that a report is made from, in its type;
else one line says which has not.

Does NOT hold these figures to anything: `scenarios.report.build` holds those of privacy to the ledgers, and the
rounds to the charges.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from fedmodel.config import Scenario
from fedmodel.config.own_packages import PackageName, Packages, PackageVersion
from fedmodel.errors import LedgerError
from fedmodel.kinds.own_names import UseName
from scenarios.runs.parts import Hash
from scenarios.runs.summary import read_metrics


class _Said(BaseModel):
    """Base: strict about types, no NaN; what else stands there is left alone."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class _Left(_Said):
    round: int
    code: str


class _Others(_Said):
    """Of a silo's copy of a round's line: the silos that are not named in it."""

    asked: int
    gone: int
    worth: float | None


class _Round(_Said):
    """A line of `metrics.jsonl`."""

    round: int
    cohort: list[str]
    summed: Annotated[int, Field(ge=0)] | None
    dropouts: dict[str, str]
    withdrawn: dict[str, _Left]
    seconds: float
    failed: Literal[True] = True
    others: _Others = _Others(asked=0, gone=0, worth=None)
    threshold: int | None = None
    loss: float | None = None
    accuracy: float | None = None
    recall: float | None = None
    precision: float | None = None
    f1: float | None = None
    auroc: float | None = None


class _Besides(_Round):
    """A line of `besides.jsonl`."""

    job: str
    charged: list[str]


class _Timing(_Said):
    seconds_total: float


class _Row(_Said):
    silo: str
    source: str
    epsilon: float | None


class _Named(_Said):
    key: str
    use: UseName
    sha256: Hash
    package: PackageName | None = None
    version: PackageVersion | None = None


class _Summary(_Said):
    """What of `summary.json` a report is made from."""

    engine: str
    device: str
    parameters: int
    privacy: list[_Row]
    timing: _Timing
    code_hash: Hash
    model_sha256: Hash | None = None
    packages: Packages = {}
    own_code: list[_Named] = []
    copy_for: str | None = None


def read_summary(path: Path) -> dict[str, Any]:
    """Return what a `summary.json` says.

    Raises:
        LedgerError: When it is no summary.
    """
    document = read_object(path)
    _check(_Summary, document, str(path))
    return document


def read_rounds(path: Path, figures: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return the lines of a `metrics.jsonl`, of which one at least is a whole round.

    Args:
        path: Of the file.
        figures: Which a line may have, each a number.

    Raises:
        LedgerError: When one is no line of a round, or none is whole.
    """
    lines = _lines(path)
    for number, line in enumerate(lines, start=1):
        _check(_Round, line, f"{path}: line {number}")
        for name in figures:
            value = line.get(name, 0.0)
            if type(value) not in (int, float) or not math.isfinite(value):
                raise LedgerError(f"{path}: line {number}: {name}: is no number")
    numbers = [line["round"] for line in lines]
    if numbers != sorted(set(numbers)) or (numbers and numbers[0] < 1):
        raise LedgerError(f"{path}: its rounds do not rise")
    if not any("failed" not in line for line in lines):
        raise LedgerError(f"{path}: has no whole round")
    return lines


def read_besides(path: Path, scenario: Scenario) -> list[dict[str, Any]]:
    """Return the lines of a `besides.jsonl`, one at most for each job besides training; none where it is not there.

    Raises:
        LedgerError: When one is no line of such a round, or of another round than its job's.
    """
    lines = _lines(path)
    for number, line in enumerate(lines, start=1):
        _check(_Besides, line, f"{path}: line {number}")
    rounds = {line["round"]: line["job"] for line in lines}
    due = {scenario.rounds + place: job for place, job in enumerate(scenario.besides, start=1)}
    if len(rounds) != len(lines) or not rounds.items() <= due.items():
        raise LedgerError(f"{path}: its lines are not of the jobs that the scenario lists, each in its round")
    return lines


def read_object(path: Path) -> dict[str, JsonValue]:
    """Return the JSON object that a file holds.

    Raises:
        LedgerError: When it holds none.
    """
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise LedgerError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise LedgerError(f"{path}: cannot be read as JSON ({type(error).__name__})") from None
    if not isinstance(document, dict):
        raise LedgerError(f"{path}: is no JSON object")
    return document


def first_fault(error: ValidationError) -> str:
    """Return what is wrong with a document, in a line."""
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in first['loc']) or 'it'}: {first['msg']}"


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        return read_metrics(path)
    except OSError as error:
        raise LedgerError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise LedgerError(f"{path}: cannot be read as lines of JSON ({type(error).__name__})") from None


def _check(model: type[_Said], document: object, where: str) -> None:
    try:
        model.model_validate(document)
    except ValidationError as error:
        raise LedgerError(f"{where}: is not as a run writes it: {first_fault(error)}") from None
