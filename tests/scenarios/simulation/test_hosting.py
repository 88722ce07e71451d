"""Silos on the nodes of a run that Flower began: any number of nodes answers for all of them, each as itself."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy
from flwr.app import ConfigRecord, Context, Message, RecordDict

import clients.client_app
from fedmodel.config import Scenario
from fedmodel.errors import ConfigError
from scenarios.simulation.grid import InProcessGrid
from scenarios.simulation.hosting import Hosted, HostedClient, HostingGrid
from scenarios.simulation.prepared import prepare


class Told:
    """Stands for the silos' app, and answers nothing but what it was told."""

    def __init__(self) -> None:
        self.contents: list[RecordDict] = []
        self.contexts: list[Context] = []

    def __call__(self, message: Message, context: Context) -> Message:
        self.contents.append(message.content)
        self.contexts.append(context)
        return Message(RecordDict(), reply_to=message)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    app = Told()
    monkeypatch.setattr(clients.client_app, "app", app)
    return app


@pytest.mark.parametrize("nodes", [1, 2, 5])
def test_each_message_comes_to_its_silo_as_it_was_sent(nodes: int, told: Told) -> None:
    grid = HostingGrid(InProcessGrid(HostedClient(), nodes, {}), 3, {"run-dir": "/somewhere"})
    assert list(grid.get_node_ids()) == [1, 2, 3]
    sent = [Message(RecordDict({"asked": ConfigRecord({"of": silo})}), silo + 1, "train") for silo in range(3)]
    replies = list(grid.pull_messages(grid.push_messages(sent)))
    assert len(replies) == 3
    assert [context.node_config["partition-id"] for context in told.contexts] == [0, 1, 2]
    assert [context.run_config for context in told.contexts] == [{"run-dir": "/somewhere"}] * 3
    assert [dict(content) for content in told.contents] == [dict(message.content) for message in sent]


def test_a_node_with_a_home_keeps_it_and_a_message_for_no_silo_is_refused(told: Told) -> None:
    context = Context(1, 2, {"home": "/kit", "partition-id": 0}, RecordDict(), {})
    content = RecordDict({"fedmodel.hosted": ConfigRecord({"run-dir": "/theirs", "partition-id": 2})})
    HostedClient()(Message(content, 2, "train"), context)
    assert told.contexts[0].node_config == {"home": "/kit", "partition-id": 2}
    with pytest.raises(ConfigError, match="none of this app's server"):
        HostedClient()(Message(RecordDict(), 2, "train"), context)


class NoNodes(InProcessGrid):
    """Flower's grid before its nodes are there."""

    def get_node_ids(self) -> list[int]:
        return []


def test_nobody_is_there_before_a_node_is() -> None:
    assert list(HostingGrid(NoNodes(HostedClient(), 2, {}), 3, {}).get_node_ids()) == []


def test_a_run_is_the_same_on_any_number_of_nodes(tiny: Scenario, tmp_path: Path) -> None:
    seeded = tiny.model_copy(update={"privacy": tiny.privacy.model_copy(update={"noise": "seeded-unsafe"})})
    models: dict[Any, bytes] = {}
    for nodes in ("in-process", 1, 2, 5):
        folder = tmp_path / str(nodes)
        prepared = prepare(seeded, (), "in-process", "cpu", folder)
        with prepared.held() as run_dir:
            carrying = None if isinstance(nodes, str) else Hosted(grid=InProcessGrid(HostedClient(), nodes, {}))
            summary = prepared.run(run_dir, nullcontext(), carrying)
        assert summary["rounds_completed"] == tiny.rounds
        assert len(summary["privacy"]) == 3
        tensors = safetensors.numpy.load_file(folder / "model.safetensors")
        models[nodes] = b"".join(tensors[name].tobytes() for name in sorted(tensors))
    assert len(set(models.values())) == 1
