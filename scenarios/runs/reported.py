"""What a deployed server knows of its silos' ledgers, in the place of ledgers: what each reported that it charged.

    charges.json         by silo: the event of one round, and for how many rounds it said that it charged it; where
                         lots grow, of the first phase, and for how many of each
    besides.jsonl        which silos said that they charged a job besides training
    run.json             the run's number
    server/heads/NAME    the newest signed head of the silo's ledger, by which it says how long that is, and no more
    server/roster.json   whose key signs it

Guarantee: `read_reported` passes heads that the silos of the roster signed, and figures that follow from these files,
whose events are the scenario's: lots, steps, clip, mechanism, source of noise, and the noise that it says or that its
target needs.

Does NOT show that a silo's ledger says the same. Whoever has the ledger can compare it: the silo itself
(`scenarios.report.silos_copy`). Knows nothing of budgets, of other runs, or of a countersignature.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fedmodel import plans
from fedmodel.config import Scenario
from fedmodel.errors import FedmodelError, LedgerError, LedgerTampered
from fedmodel.ledger import Run, Standing, origin_of
from fedmodel.ledger.entries import RUN_NAME, figures_of
from fedmodel.ledger.heads import open_head
from fedmodel.ledger.runs import Charged
from fedmodel.privacy.events import Event
from fedmodel.privacy.mechanisms import event_from_json
from fedmodel.provision import scenario_hash
from scenarios.runs.files import read_besides, read_object
from scenarios.runs.ledgers import SiloLedger, key_of, ledger_in_run
from server.metrics import BESIDES
from server.run_files import CHARGES
from server.runs import RUN


def read_reported(run_dir: Path, scenario: Scenario, silos: Sequence[str]) -> dict[str, SiloLedger]:
    """Return what each silo reported; a silo that did not join is left out.

    Args:
        run_dir: The run's folder, as `server report` lays it out.
        scenario: What was done.
        silos: Those that the report is of.

    Raises:
        LedgerError: When a file is not as a server writes it.
        LedgerTampered: When a head is not the silo's, or no roster names the silo's key.
    """
    told, run = read_object(run_dir / CHARGES), number_of(run_dir)
    if others := sorted(set(told) - set(silos)):
        raise LedgerTampered(f"{run_dir / CHARGES}: has {others[0]!r}, of whom this report is not")
    besides = read_besides(run_dir / BESIDES, scenario)
    found = {}
    for silo in silos:
        if silo in told:
            held = _run(run_dir / CHARGES, scenario, silo, told[silo])
            _add_besides(held, scenario, silo, besides)
            found[silo] = _in_a_ledgers_place(run_dir, scenario, silo, run, held)
    return found


def number_of(run_dir: Path) -> str:
    """Return the number of a deployed run, by which ledgers call it.

    Raises:
        LedgerError: When the folder does not say it.
    """
    run = read_object(run_dir / RUN).get("run")
    if not isinstance(run, str) or not run.isdecimal():
        raise LedgerError(f"{run_dir / RUN}: does not say the run's number")
    return run


def name_of(run_dir: Path) -> str | None:
    """Return what its server calls a deployed run; None of one from before servers said so.

    Raises:
        LedgerError: When it is no name.
    """
    name = read_object(run_dir / RUN).get("name")
    if name is not None and not (isinstance(name, str) and RUN_NAME.fullmatch(name)):
        raise LedgerError(f"{run_dir / RUN}: does not say the run's name in small letters, figures and hyphens")
    return name


def _run(path: Path, scenario: Scenario, silo: str, said: Any) -> Run:
    """Return what a silo reported as what its ledger holds of the run: all its parts, and so many rounds charged."""
    phases = scenario.phases
    try:
        event, rounds = event_from_json(said["event"]), figures_of(said["rounds"], len(phases))
        if min(rounds) < 0:
            raise ValueError("rounds")
    except (KeyError, TypeError, ValueError, FedmodelError) as error:
        raise LedgerError(
            f"{path}: does not say what silo {silo} charged for a round, and in how many ({type(error).__name__})"
        ) from None
    _check_planned(path, scenario, silo, event)
    parts = plans.parts_beginning(scenario, silo, event)
    drawn, charges = [part.steps for part in parts], dict[int, Charged]()
    for place, (phase, times) in enumerate(zip(phases, rounds, strict=True)):
        steps = plans.event_of_round(scenario, silo, event, phase.first).steps
        drawn[place] = times * steps
        if drawn[place] > parts[place].steps:
            raise LedgerError(f"{path}: silo {silo} reported {drawn[place]} steps, more than its plan has")
        numbers = range(phase.first, phase.first + times)
        charges |= {number: Charged(number, steps, "", place) for number in numbers}
    return Run("", parts, tuple(0 for _ in parts), "filter", scenario_hash(scenario).hex(), 0, drawn, charges)


def _check_planned(path: Path, scenario: Scenario, silo: str, event: Event) -> None:
    """Refuse an event of one round that is another than the scenario's: of more noise, as of fewer steps, less follows.

    Where a target is given, its noise is what that needs, to the tolerance of a calibration. Of less noise more
    follows, and a report says it.

    Raises:
        LedgerTampered: Which figure is another, and what the scenario says.
    """
    plan = scenario.plan(silo)
    planned = plans.allowed_event(plan, event).times(plan.steps_per_round)
    for name, figure in {"mechanism": planned.mechanism, **asdict(planned)}.items():
        if (said := getattr(event, name)) != figure:
            raise LedgerTampered(
                f"{path}: silo {silo} charged {name} {said} for a round, where the scenario has {figure}"
            )
    if plans.spares_noise(scenario, silo, event):
        raise LedgerTampered(
            f"{path}: silo {silo} charged noise_multiplier {event.noise_multiplier} for a round, more than its target"
            f" epsilon {plan.target_epsilon} needs"
        )


def _add_besides(held: Run, scenario: Scenario, silo: str, lines: Sequence[Mapping[str, Any]]) -> None:
    """Add a charge of each job besides training that the silo said it charged; all count as drawn on, as in its row."""
    for line in lines:
        if silo in line["charged"]:
            part = scenario.part_of(line["round"])
            held.charges[line["round"]] = Charged(line["round"], held.parts[part].steps, "", part)


def _in_a_ledgers_place(run_dir: Path, scenario: Scenario, silo: str, run: str, held: Run) -> SiloLedger:
    """Return what stands for a silo's ledger: the one run, and the newest head that is known."""
    key = key_of(ledger_in_run(run_dir, silo))
    if key is None:
        raise LedgerTampered(f"{run_dir}: holds no roster that would name the key of silo {silo}")
    note = _head(run_dir, silo)
    try:
        root = b"" if note is None else open_head(note, origin_of(silo), key).root
    except FedmodelError as error:
        raise LedgerTampered(f"the head of silo {silo}'s ledger that the server kept: {error}") from None
    standing = Standing()
    standing.silo, standing.key, standing.runs = silo, key, {run: held}
    return SiloLedger(
        silo=silo,
        entries=(),
        standing=standing,
        root=root,
        note=note,
        vouched=True,
        roster=True,
        heads=() if note is None else ("server",),
        compared=True,
        newer=0,
        run=run,
        data=scenario.data.data_set,
        goes_on=scenario.goes_on,
        reported=True,
    )


def _head(run_dir: Path, silo: str) -> bytes | None:
    path = run_dir / "server" / "heads" / silo
    return path.read_bytes() if path.is_file() else None
