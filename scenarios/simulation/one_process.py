"""A run without messages, kits or ledgers: its silos train here or in forks, and a book says who was charged when.

    [ choose -> charge -> train -> mean -> fold -> measure -> write ] per round

All but charging and training is what a server does in any run (`server.round_loop`): strategies, cohorts, metrics,
checkpoints, how a round fails and how a run ends. Silos train by a `Trainer`, in which a silo is its records, its noise
and, where the scenario keeps it, its optimiser's state. `[faults]` loses the same silos in the same rounds as in any
other simulation. However a run ends, what trained for it has ended before.

Guarantee: what leaves a silo is what its event in the book says, charged before its records are used
(`scenarios.runs.event_book`). Nothing is encrypted, signed or kept apart: it is for simulation, and the report says so.

Shapes: P parameters.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch

from fedmodel import plans, wire
from fedmodel.config import TRAINING, Scenario
from fedmodel.errors import ConfigError, LedgerTampered, ProtocolError
from fedmodel.learning.jobs import Serving, State, job_named
from fedmodel.privacy.events import Event
from fedmodel.privacy.plan import SiloPlan
from fedmodel.provision import read_identity
from fedmodel.secagg import Member, Roster
from fedmodel.system.durable import held
from fedmodel.wire import TrainRequest
from scenarios.runs.event_book import EventBook, is_booked
from scenarios.simulation.trainers import Trainer
from server.aggregation import RoundResult, Taking, put_back
from server.aggregation.plain import Rounds
from server.answers import log_dropouts, reasons
from server.exchange import Faults, Post
from server.joining import Joined, JoinedSilo
from server.journal import Checkpoint, Journal
from server.known_heads import KnownHeads
from server.lineages import Lineages
from server.metrics import Logs
from server.round_loop import ComeTo, RoundLoop
from server.run_files import BEING_RUN, SERVING, RunFiles
from server.served_model import ServedModel
from server.server_app import bring_up_to, log_to
from server.strategies import Combining, Strategy, strategy_of

MakeTrainer = Callable[[Scenario, torch.device], Trainer]

_LATE: Final = "late"  # what a server notes of an answer that did not come

logger = logging.getLogger("server.one_process")


class _NoPost(Post):
    """Carries nothing: every silo is here."""

    def __init__(self, run: int, silos: int) -> None:
        self.run, self.name, self.owners = run, "", {}
        self._present = list(range(1, silos + 1))

    def begin(self, round_number: int) -> None:
        """Begin a round."""

    def ask_again(self) -> None:
        """Forget nothing: there is no answer on disk."""

    def present(self) -> list[int]:
        """Return all of them."""
        return self._present


class BookedRounds(Rounds):
    """Rounds whose silos are charged in a book, and train by a `Trainer`.

    Args:
        taking: What the rounds have in common.
        book: Takes the charges.
        trainer: Trains.
    """

    def __init__(self, taking: Taking, book: EventBook, trainer: Trainer) -> None:
        super().__init__(taking)
        self._book, self._trainer, self._faults = book, trainer, Faults(taking.scenario)

    def round(self, cohort: list[str], request: TrainRequest) -> RoundResult:
        """Charge and train a cohort, and bring the round to its mean, or to a closed failure with a reason."""
        taking, number = self.taking, request.round_number
        self._open(number, cohort)
        request = taking.lineages.named(request, cohort)
        lost = {silo: self._faults.loses(wire.TRAIN, number, silo) for silo in cohort}
        dropouts = {silo: _LATE for silo in cohort if lost[silo] == "request"}
        asked = [silo for silo in cohort if silo not in dropouts]
        self._book.charge(number, asked)
        trained = self._trainer.round(number, asked, request.model_P, request.lineage)
        dropouts |= trained.failed | {silo: _LATE for silo in asked if lost[silo] and silo not in trained.failed}
        pattern = self._pattern(request)
        self._updates = {
            silo: one if pattern is None else pattern.take(one)
            for silo, one in trained.updates.items()
            if silo not in dropouts
        }
        charged = {silo: taking.joined.members[silo].charge for silo in asked if silo not in dropouts}
        taking.lineages.answered(request, self._updates)
        log_dropouts(number, dropouts)
        told = tuple(sorted(cohort))
        try:
            found = self._close()
        except ProtocolError as error:
            gone = f"; dropped out: {reasons(dropouts)}" if dropouts else ""
            return RoundResult(None, charged, dropouts, f"round {number} failed closed: {error}{gone}", asked=told)
        mean_P = put_back(found.mean_K, pattern)
        return RoundResult(mean_P, charged, dropouts, asked=told, summed=len(found.survivors))


def run_booked(scenario: Scenario, run_dir: Path, device: str, run: str, make: MakeTrainer) -> None:
    """Run a simulation to its end, or take it up after its last whole round.

    Args:
        scenario: What is done; checked.
        run_dir: The run's folder, which has a server's kit.
        device: Where silos train, "cpu", "cuda" or "cuda:N".
        run: The run's number; empty where it gets one as it begins, and is not taken up again.
        make: Makes what trains.

    Raises:
        FedmodelError: When it fails; what was written until then stays.
    """
    with log_to(run_dir / "server.log"), held(run_dir / SERVING, BEING_RUN.format(run_dir)):
        _run(scenario, run_dir, torch.device(device), run, make)


def _run(scenario: Scenario, run_dir: Path, device: torch.device, run: str, make: MakeTrainer) -> None:
    """Do what a server does, with silos that are here."""
    torch.set_num_threads(1)
    place = RunFiles(run_dir, run_dir / "server", sealed=False)
    number = int(run) if run else 1 + secrets.randbelow(2**63 - 1)
    journal = place.journal(int(run) if run else None, scenario)
    kept = _kept(journal, scenario)
    if kept is not None and not is_booked(run_dir):
        raise LedgerTampered(f"{run_dir}: a round was whole, and the book of who was charged for it is gone")
    strategy, model, logs = strategy_of(scenario), ServedModel(scenario, place, device), Logs(run_dir)
    jobs = {TRAINING: job_named(TRAINING).asking(Serving(scenario, strategy.apply, model.measure))}
    book = EventBook(run_dir, scenario, str(number), read_identity(place.home).public)
    taking = _taking(scenario, strategy, number, place.home, kept)
    with closing(make(scenario, device)) as trainer:
        loop = RoundLoop(BookedRounds(taking, book, trainer), jobs, model, place, journal, logs)
        if kept is not None:
            bring_up_to(kept, scenario, model, place, logs)
            come_to = ComeTo.again(kept)
        else:
            come_to = ComeTo(0, State(model.begin()))
            loop.keep(come_to)
        come_to = loop.run(come_to)
    model.judge(come_to.state, taking.joined.charges)
    place.clear_up()


def _kept(journal: Journal | None, scenario: Scenario) -> Checkpoint | None:
    """Return the last whole round of a run that is taken up; refuse one whose optimisers' state is gone."""
    loaded = None if journal is None else journal.load()
    if loaded is None:
        return None
    if scenario.carries_state and loaded[0].round_number:
        raise ConfigError(
            "training.keep_optimizer_state: the state of silos' optimisers was in the memory of the process that was"
            " cut short, so that --engine vectorised cannot go on; begin again in a new folder"
        )
    return loaded[0]


def _charges(scenario: Scenario) -> dict[str, Event]:
    """Return what each silo charges for a round: one event of all that plan alike, which is then read and written once.

    Figures of a plan are the scenario's, each of one type, so that equal plans have one event to the last letter.
    """
    shared: dict[SiloPlan, Event] = {}
    charges = {}
    for plan in map(scenario.plan, scenario.federation.silos):
        alike = replace(plan, silo="")
        if alike not in shared:
            shared[alike] = plans.planned_event(plan).times(plan.steps_per_round)
        charges[plan.silo] = shared[alike]
    return charges


def _taking(scenario: Scenario, strategy: Strategy, run: int, home: Path, kept: Checkpoint | None) -> Taking:
    """Return what rounds have in common, where every silo has joined."""
    silos = scenario.federation.silos
    charges = _charges(scenario) if kept is None else kept.charges
    members = {silo: JoinedSilo(node, charges[silo]) for node, silo in enumerate(silos, start=1)}
    joined = Joined(members, {}) if kept is None else Joined(members, {}, withdrawn=dict(kept.withdrawn))
    # Nobody's ledger is followed, and a roster has a member: the key that signs the report.
    roster = Roster(scenario.name, (Member("server", read_identity(home).public),))
    combine = strategy.combine if isinstance(strategy, Combining) else None
    lineages = Lineages(scenario, run, {} if kept is None else kept.lineages)
    return Taking(
        _NoPost(run, len(silos)),
        scenario,
        roster,
        KnownHeads(home / "heads", roster),
        joined,
        lambda number: strategy.choose(joined.left, number),
        lineages,
        combine,
    )
