"""The rounds that a server says were brought to an end: held to `scenario.toml`, and to what silos were charged.

Guarantee: `read` returns lines whose rounds rise and are those of the plan, each whole one a sum of the scenario's
least number of silos or more; `check_charged` passes them only if each silo in a sum was charged for it.

Does NOT show that a round which failed was not used, nor who was left out of one.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from fedmodel.errors import LedgerTampered
from fedmodel.ledger import Run
from fedmodel.system.counts import counted
from scenarios.report.verifier import signed

METRICS: Final = "metrics.jsonl"


def read(folder: Path, scenario: Mapping[str, Any], silos: Sequence[str], *, copy: bool) -> list[dict[str, Any]]:
    """Return the lines of the rounds that trained.

    Args:
        folder: The report's.
        scenario: Of the run.
        silos: Of whom the report is.
        copy: Whether it is one silo's, in which the others in a sum are a number.

    Raises:
        LedgerTampered: When one is of no round of the plan or is no sum of enough of the silos, or none is whole.
    """
    lines, last = lines_of(folder / METRICS), int(scenario["rounds"])
    _check(METRICS, lines, scenario, range(1, last + 1), silos, copy=copy)
    if not any("failed" not in line for line in lines):
        raise LedgerTampered(f"{METRICS}: has no whole round")
    return lines


def read_besides(
    folder: Path, scenario: Mapping[str, Any], silos: Sequence[str], *, copy: bool
) -> list[dict[str, Any]]:
    """Return the lines of the jobs besides training, a round each; none where there were none.

    Raises:
        LedgerTampered: As `read` does; or when a silo is in a sum that the line does not say it charged.
    """
    lines, last = lines_of(folder / signed.BESIDES), int(scenario["rounds"])
    due = range(last + 1, last + 1 + len(scenario.get("besides", {})))
    _check(signed.BESIDES, lines, scenario, due, silos, copy=copy)
    for line in lines:
        for silo in sorted(_summed(line) - set(line["charged"])):
            raise LedgerTampered(
                f"silo {silo}: its update is in round {line['round']} of {signed.BESIDES}, which does not say that it"
                " charged that"
            )
    return lines


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Return what a file of lines says, nothing where there is no file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def check_charged(
    lines: Sequence[Mapping[str, Any]], charged: Mapping[str, Run | int | None], firsts: Sequence[int] = ()
) -> None:
    """Refuse whole rounds with an update in the sum that was not charged for, or not to the round's own part.

    Args:
        lines: Of the rounds.
        charged: By silo, what its ledger holds of the run; or in how many rounds it reported a charge.
        firsts: The first round of each part of the ledgers' reservations.

    Raises:
        LedgerTampered: Which silo's, in which round.
    """
    sums = Counter[str]()
    for line in lines:
        for silo in sorted(_summed(line)):
            sums[silo] += 1
            said = charged.get(silo)
            held = {(one.round, one.part) for one in said.charges.values()} if isinstance(said, Run) else set()
            number = line["round"]
            part = sum(first <= number for first in firsts) - 1
            if (number, part) not in held and (not isinstance(said, int) or sums[silo] > said):
                raise LedgerTampered(f"silo {silo}: its update is in round {number}, and no charge for it is here")


def _summed(line: Mapping[str, Any]) -> set[str]:
    """Return the silos in a round's sum; none where it failed."""
    return set() if "failed" in line else set(line["cohort"]) - line["dropouts"].keys()


def _check(
    file: str,
    lines: Sequence[Mapping[str, Any]],
    scenario: Mapping[str, Any],
    planned: range,
    silos: Sequence[str],
    *,
    copy: bool,
) -> None:
    """Refuse rounds that the plan does not have or that do not rise, and whole ones of fewer silos than are asked for.

    What is not checked against a phase is checked against no charge; and a sum of nobody, or of whom nobody knows, is
    charged to no silo.
    """
    least, before = int(scenario["federation"]["min_silos"]), planned.start - 1
    for line in lines:
        number, answered = line["round"], len(_summed(line))
        if type(number) is not int or number not in planned:
            raise LedgerTampered(
                f"{file}: has round {number}, and scenario.toml plans {len(planned)} there, from {planned.start}"
            )
        if number <= before:
            raise LedgerTampered(f"{file}: its rounds do not rise: {number} follows {before}")
        before = number
        if others := sorted(set(line["cohort"]) - set(silos)):
            raise LedgerTampered(f"{file}: round {number} has {others[0]} in its cohort, of whom this report is not")
        if "failed" in line:
            continue
        summed = line["summed"]
        if type(summed) is not int or (summed < answered if copy else summed != answered):
            told = counted(summed, "update") if type(summed) is int else f"{summed!r} updates"
            raise LedgerTampered(
                f"{file}: round {number} has {told} in its sum, and {counted(answered, 'silo')} answered"
            )
        if summed < least:
            raise LedgerTampered(
                f"{file}: round {number} is whole with {counted(summed, 'silo')}, and scenario.toml asks for {least}"
            )
