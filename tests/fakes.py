"""In-memory peers behind the real interfaces: the real apps over Flower's real Grid interface, with faults to order."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from flwr.app import Message

from clients.client_app import app as client_app
from fedmodel.config import Scenario
from fedmodel.provision import provision
from scenarios.engine import InProcessGrid

Fault = Callable[[int, Message], Message | None]


def run_config(scenario: Scenario, run_dir: Path) -> dict[str, bool | float | int | str]:
    return {
        "scenario": scenario.model_dump_json(exclude_none=True),
        "run-dir": str(run_dir),
        "device": "cpu",
    }


class FaultyGrid(InProcessGrid):
    """The in-process grid, with a hand on every reply: return it, another, or None for one that never comes.

    `seen` keeps every reply as the server's side got it.
    """

    def __init__(self, scenario: Scenario, run_dir: Path, fault: Fault | None = None) -> None:
        if not (run_dir / "silos").exists():
            provision(scenario, run_dir)
        super().__init__(client_app, len(scenario.federation.silos), run_config(scenario, run_dir))
        self._fault = fault or (lambda _, reply: reply)
        self.seen: list[Message] = []

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        kept = []
        for reply in super().pull_messages(message_ids):
            changed = self._fault(reply.metadata.src_node_id, reply)
            if changed is not None:
                kept.append(changed)
        self.seen.extend(kept)
        return kept
