"""A Grid whose nodes are calls of an app in this process."""

from __future__ import annotations

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from scenarios.simulation.grid import InProcessGrid

echo = ClientApp()


@echo.train()
def _spoil(message: Message, context: Context) -> Message:
    """Change what was received, count in the state, and answer with both."""
    record = message.content["arrays"]
    assert isinstance(record, ArrayRecord)
    record["vector"] = Array(record["vector"].numpy() + 1)
    calls = context.state.get("calls")
    number = (int(calls["n"].numpy()[0]) if isinstance(calls, ArrayRecord) else 0) + 1
    context.state["calls"] = ArrayRecord({"n": Array(np.array([number]))})
    message.content["calls"] = ArrayRecord({"n": Array(np.array([number]))})
    return Message(message.content, reply_to=message)


@echo.query()
def _crash(message: Message, context: Context) -> Message:
    raise ValueError("a secret")


def content() -> RecordDict:
    return RecordDict({"arrays": ArrayRecord({"vector": Array(np.zeros(2))})})


def test_every_node_gets_its_own_copy_and_keeps_its_own_state() -> None:
    grid = InProcessGrid(echo, 2, {})
    shared = content()
    for expected in (1, 2):
        messages = [grid.create_message(shared, "train", node, "1") for node in grid.get_node_ids()]
        replies = list(grid.send_and_receive(messages))
        assert [reply.content["arrays"]["vector"].numpy().tolist() for reply in replies] == [[1.0, 1.0]] * 2
        assert [int(reply.content["calls"]["n"].numpy()[0]) for reply in replies] == [expected] * 2
    assert shared["arrays"]["vector"].numpy().tolist() == [0.0, 0.0]


def test_replies_name_the_message_they_answer_and_come_once() -> None:
    grid = InProcessGrid(echo, 3, {})
    nodes = list(grid.get_node_ids())
    ids = list(grid.push_messages([grid.create_message(content(), "train", node, "1") for node in nodes]))
    assert len(set(ids)) == 3
    replies = {reply.metadata.reply_to_message_id: reply for reply in grid.pull_messages(ids)}
    assert [replies[message_id].metadata.src_node_id for message_id in ids] == nodes
    assert list(grid.pull_messages(ids)) == []


def test_an_exception_becomes_an_error_without_its_text() -> None:
    grid = InProcessGrid(echo, 1, {})
    (reply,) = grid.send_and_receive([grid.create_message(content(), "query", 2, "1")])
    assert reply.has_error()
    assert "secret" not in repr(reply)


def test_a_node_that_is_not_there_is_an_error() -> None:
    grid = InProcessGrid(echo, 1, {})
    (reply,) = grid.send_and_receive([grid.create_message(content(), "train", 99, "1")])
    assert reply.has_error()


def test_nodes_are_numbered_as_flower_numbers_them() -> None:
    grid = InProcessGrid(echo, 2, {"device": "cpu"})
    assert [context.node_config for context in grid._contexts.values()] == [
        {"partition-id": 0, "num-partitions": 2},
        {"partition-id": 1, "num-partitions": 2},
    ]
    assert 0 < grid.run.run_id < 2**63
