"""The event book of a run whose silos kept no ledgers: who was to train when, with what event, a line a round.

    book.jsonl    first the run: its number, its scenario's hash, the key that signs its report, and the whole plan of
                  each silo; then a line for each round that was begun, before anybody trained in it

One process simulated all silos, so that no silo has a key, a law or a ledger of its own. Each silo's epsilon is
replayed from its whole plan, and from how often it was charged, exactly as from a ledger (`scenarios.runs.claims`).

Guarantee: a line is on disk before a record is used in its round, and a silo is charged at most once for a round, so
for no more steps than its plan has. A round that is begun again after a kill was paid for: whatever was drawn for it
was in the memory of a process that is gone, since a round's checkpoint comes before all else that is written of it.
`read_booked` passes a book of one run of one scenario, whose plans are those of that scenario.

Does NOT show what happened. Nobody but whoever ran the simulation wrote the book: nothing in it is signed, chained or
countersigned, an entry that was changed or taken away is not noticed, and no budget besides this run is known. A round
that failed, and is begun again by the same command, is charged once: that it failed is told, and may have hung on what
was drawn for it where a loss of the user's own raises at some records. A silo's ledger charges it again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from fedmodel import plans
from fedmodel.config import Scenario
from fedmodel.errors import LedgerError, LedgerTampered
from fedmodel.ledger import Run, Standing
from fedmodel.ledger.runs import Charged
from fedmodel.privacy.events import Event, event_to_json
from fedmodel.privacy.mechanisms import event_from_json
from fedmodel.privacy.plan import SiloPlan
from fedmodel.provision import scenario_hash
from fedmodel.system.durable import replace_file
from scenarios.runs import words
from scenarios.runs.ledgers import SiloLedger
from scenarios.runs.summary import row_of
from server.metrics import MetricsLog

BOOK: Final = "book.jsonl"
_FORMAT: Final = "fedmodel-event-book/1"


@dataclass(frozen=True)
class Booked:
    """What a book says.

    Attributes:
        run: The run's number.
        scenario: The hash of its scenario, in hexadecimal.
        signer: The public key of whoever simulated, in hexadecimal, which signs the run's report.
        plans: By silo, the event of its whole plan.
        rounds: Of each line, the round that was begun, and who was charged for it.
    """

    run: str
    scenario: str
    signer: str
    plans: Mapping[str, Event]
    rounds: tuple[tuple[int, tuple[str, ...]], ...] = ()


class EventBook:
    """A run's book, to be written on.

    Args:
        run_dir: The run's folder.
        scenario: What is done.
        run: The run's number.
        signer: The key that will sign the run's report.

    Raises:
        LedgerError: When a book lies there that is of another run or is no book; or when lots grow.
    """

    def __init__(self, run_dir: Path, scenario: Scenario, run: str, signer: bytes) -> None:
        _check_one_rate(run_dir / BOOK, scenario)
        self._path = run_dir / BOOK
        self._log = MetricsLog(self._path)
        if not self._path.exists():
            planned = {silo: plans.planned_event(scenario.plan(silo)) for silo in scenario.federation.silos}
            replace_file(self._path, _first_line(run, scenario, signer, planned))
        _cut_off_half_a_line(self._path)
        found = read_book(self._path)
        if (found.run, found.scenario, found.signer) != (run, scenario_hash(scenario).hex(), signer.hex()):
            raise LedgerTampered(f"{self._path}: is of another run, scenario or key than this folder")
        self._rounds = scenario.rounds
        self._begun: dict[int, set[str]] = {}
        for number, silos in found.rounds:
            self._begun.setdefault(number, set()).update(silos)

    def charge(self, number: int, silos: Iterable[str]) -> None:
        """Enter a round that begins, and who is charged for it; on disk when this returns.

        Raises:
            LedgerError: When no silo's plan has such a round; nothing was entered.
        """
        if not 1 <= number <= self._rounds:
            raise LedgerError(f"round {number} is none of the {self._rounds} that silos' plans have")
        paid = self._begun.setdefault(number, set())
        if new := sorted(set(silos) - paid):
            self._log.append({"round": number, "charged": new})
            paid.update(new)


def _first_line(run: str, scenario: Scenario, signer: bytes, planned: Mapping[str, Event]) -> bytes:
    """Return what a book begins with; silos whose plans are equal share one."""
    shared: dict[Event, list[str]] = {}
    for silo, event in planned.items():
        shared.setdefault(event, []).append(silo)
    told = {
        "format": _FORMAT,
        "run": run,
        "scenario": scenario_hash(scenario).hex(),
        "signer": signer.hex(),
        "plans": [{"event": json.loads(event_to_json(event)), "silos": silos} for event, silos in shared.items()],
    }
    return (json.dumps(told, sort_keys=True, allow_nan=False) + "\n").encode()


def _check_one_rate(path: Path, scenario: Scenario) -> None:
    """Refuse a scenario whose lots grow: a book has one event for a silo, and would charge all steps at one rate."""
    if scenario.training.lots:
        raise LedgerError(f"{path}: training.lots grows lots, and a book charges all of a silo's steps at one rate")


def _cut_off_half_a_line(path: Path) -> None:
    """Take away what a kill left half written: nobody trained for it."""
    data = path.read_bytes()
    if not data.endswith(b"\n"):
        os.truncate(path, data.rfind(b"\n") + 1)


def read_book(path: Path) -> Booked:
    """Read a book.

    Raises:
        LedgerError: When it is none.
    """
    try:
        first, *lines = [json.loads(line) for line in path.read_bytes().splitlines()]
        if first["format"] != _FORMAT:
            raise LedgerError(f"{path}: is a book of format {first['format']!r}, and this reads {_FORMAT!r}")
        planned = {
            silo: event_from_json(json.dumps(one["event"])) for one in first["plans"] for silo in map(str, one["silos"])
        }
        rounds = tuple((int(line["round"]), tuple(map(str, line["charged"]))) for line in lines)
        signer = bytes.fromhex(first["signer"]).hex()
        return Booked(str(first["run"]), str(first["scenario"]), signer, planned, rounds)
    except OSError as error:
        raise LedgerError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise LedgerError(f"{path}: is no event book of a run ({type(error).__name__})") from None


def read_booked(run_dir: Path, scenario: Scenario) -> dict[str, SiloLedger]:
    """Return what stands for each silo's ledger: the one run, as the book has it.

    Args:
        run_dir: The run's folder.
        scenario: What was done.

    Raises:
        LedgerError: When the book is none, is of another scenario, or holds what no plan of it has; or when lots grow.
    """
    path = run_dir / BOOK
    _check_one_rate(path, scenario)
    found = read_book(path)
    if found.scenario != scenario_hash(scenario).hex():
        raise LedgerTampered(f"{path}: is of scenario {found.scenario[:16]}..., and scenario.toml is another")
    if found.plans.keys() != set(scenario.federation.silos):
        raise LedgerTampered(f"{path}: is of other silos than scenario.toml")
    runs = _runs(path, scenario, found)
    return {silo: _in_a_ledgers_place(scenario, silo, found.run, runs[silo]) for silo in scenario.federation.silos}


def _runs(path: Path, scenario: Scenario, found: Booked) -> dict[str, Run]:
    """Return what a ledger would hold of the run, by silo."""
    runs: dict[str, Run] = {}
    for silo, event in found.plans.items():
        plan = scenario.plan(silo)
        if event != _planned(replace(plan, silo="")):
            raise LedgerTampered(f"{path}: plans otherwise for silo {silo} than scenario.toml does")
        runs[silo] = Run("", (event,), (0,), "filter", found.scenario, 0, [0])
    for number, silos in found.rounds:
        if not 1 <= number <= scenario.rounds:
            raise LedgerTampered(f"{path}: charges for round {number}, and scenario.toml has {scenario.rounds}")
        for silo in silos:
            if silo not in runs or number in runs[silo].charges:
                raise LedgerTampered(f"{path}: charges {silo!r} twice for round {number}, or it is no silo of the run")
            run, steps = runs[silo], runs[silo].plan.steps // scenario.rounds
            run.charges[number] = Charged(number, steps, "", 0)
            run.drawn[0] += steps
    return runs


@lru_cache(maxsize=256)
def _planned(plan: SiloPlan) -> Event:
    """Return what a plan is charged as; of many silos that plan alike, once."""
    return plans.planned_event(plan)


def _in_a_ledgers_place(scenario: Scenario, silo: str, run: str, held: Run) -> SiloLedger:
    """Return what stands for a silo's ledger: a run, and no key, entry or head."""
    standing = Standing()
    standing.silo, standing.runs = silo, {run: held}
    return SiloLedger(
        silo=silo,
        entries=(),
        standing=standing,
        root=b"",
        note=None,
        vouched=False,
        roster=False,
        heads=(),
        compared=True,
        newer=0,
        run=run,
        data=scenario.data.data_set,
        booked=True,
    )


def rows_from_book(scenario: Scenario, run_dir: Path) -> list[dict[str, Any]]:
    """Return a row a silo: what its plan and its charges in the book come to.

    Raises:
        LedgerError: As `read_booked` does.
    """
    ledgers = read_booked(run_dir, scenario)
    return [row_from_book(scenario.plan(silo), ledger.own) for silo, ledger in ledgers.items()]


def row_from_book(plan: SiloPlan, own: Run | None) -> dict[str, Any]:
    """Return the row of one silo."""
    event, taken = (None, 0) if own is None or not own.charges else (own.plan, own.taken)
    return {**_row(replace(plan, silo=""), event, taken), "silo": plan.silo}


@lru_cache(maxsize=1024)
def _row(plan: SiloPlan, event: Event | None, taken: int) -> dict[str, Any]:
    """Return what is the same for all silos that planned alike and were charged alike."""
    claimed = [] if event is None else [event]
    return {**row_of(plan, plan.delta, claimed, [taken]), "budget": None, "source": words.BOOK}


def is_booked(run_dir: Path) -> bool:
    """Return whether a run's folder has a book in the place of ledgers."""
    return (run_dir / BOOK).is_file()


def signer_of(run_dir: Path) -> bytes:
    """Return the public key that the book says its run's report is signed with.

    Raises:
        LedgerError: When the book is none.
    """
    return bytes.fromhex(read_book(run_dir / BOOK).signer)
