"""In-memory peers behind the real interfaces: the real apps over Flower's real Grid interface, with faults to order."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from flwr.app import Message, RecordDict
from numpy.typing import NDArray

from clients.answering import job_at
from clients.client_app import app as client_app
from clients.silo import Silo
from fedmodel import wire
from fedmodel.config import Scenario
from fedmodel.learning.jobs import Carried
from fedmodel.ledger import read_ledger
from fedmodel.privacy.events import Event
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent
from fedmodel.provision import provision, read_identity, scenario_hash
from scenarios.simulation.grid import InProcessGrid

Fault = Callable[[int, Message], Message | None]


def run_config(scenario: Scenario, run_dir: Path) -> dict[str, bool | float | int | str]:
    return {
        "scenario": scenario.model_dump_json(exclude_none=True),
        "run-dir": str(run_dir),
        "device": "cpu",
    }


def charged(path: Path) -> list[DpSgdEvent]:
    """Return everything that a ledger was charged, of all its scopes; a file that is not there raises."""
    standing = read_ledger(path)
    return [event for scope in standing.scopes for event in standing.events(scope)]


def checked(silo: Silo, plan: Event, request: wire.TrainRequest) -> None:
    """Hold a request to what its job checks before the charge."""
    job, question = job_at(silo, request)
    job.check(question, plan)


def trained(
    silo: Silo, event: Event, request: wire.TrainRequest, carried: Carried | None = None
) -> NDArray[np.float32]:
    """Return what a silo answers to a request, once this was charged for it."""
    job, question = job_at(silo, request)
    return job.answer(question, silo.records, event, {} if carried is None else carried)


class FaultyGrid(InProcessGrid):
    """The in-process grid, with a hand on every reply: return it, another, or None for one that never comes.

    `seen` keeps every reply as the server's side got it.
    """

    def __init__(self, scenario: Scenario, run_dir: Path, fault: Fault | None = None) -> None:
        if not (run_dir / "silos").exists():
            provision(scenario, run_dir)
        super().__init__(client_app, len(scenario.federation.silos), run_config(scenario, run_dir))
        self._fault = fault or (lambda _, reply: reply)
        self._server, self._scenario = read_identity(run_dir / "server"), scenario_hash(scenario)
        self.seen: list[Message] = []

    def asked(self, content: RecordDict, kind: str, node: int) -> Message:
        """Return a question as the server asks it: signed."""
        signed = wire.sign_request(content, kind, self.run.run_id, self._scenario, self._server)
        return self.create_message(signed, kind, node, "1")

    def sign_again(self, message: Message) -> None:
        """Sign a question that was changed, as a server does that lies, and a carrier cannot."""
        asked = RecordDict({name: record for name, record in message.content.items() if name != "fedmodel.signed"})
        kind = message.metadata.message_type
        message.content = wire.sign_request(asked, kind, self.run.run_id, self._scenario, self._server)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        kept = []
        for reply in super().pull_messages(message_ids):
            changed = self._fault(reply.metadata.src_node_id, reply)
            if changed is not None:
                kept.append(changed)
        self.seen.extend(kept)
        return kept
