"""What Flower's SuperNode does otherwise at a silo; a real one, with real processes, is in `tests/integration/`."""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.app import Message, RecordDict
from flwr.common.constant import Status
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run, RunNotRunningException
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.nodestate import NodeStateFactory

from clients import supernode
from fedmodel.wire.bundle import make_bundle

RUN = 12345


def message() -> Message:
    """A question as it comes from the server."""
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = RUN, 1, 1
    asked = Message(RecordDict(), 1, "query.join", ttl=60.0)
    asked.metadata.__dict__["_message_id"] = asked.object_id
    return asked


@pytest.mark.parametrize("ends_at", ["pull_object", "confirm_message_received"])
def test_a_run_that_ends_while_its_message_comes_leaves_nothing_to_be_done(ends_at: str) -> None:
    """Flower keeps a task of it, whose objects never come: the silo would answer nobody until that is given up."""
    loop = importlib.import_module("flwr.supernode.start_client_internal")
    objects = ObjectStoreFactory()
    state, store = NodeStateFactory(objectstore_factory=objects).state(), objects.store()
    state.set_node_id(1)
    asked, bundle = message(), make_bundle()
    contents = {name: part.deflate() for name, part in get_all_nested_objects(asked).items()}

    def over(*_: Any) -> Any:
        raise RunNotRunningException

    calls: dict[str, Any] = {
        "receive": lambda: (asked, get_object_tree(asked)),
        "get_run": lambda number: Run.create_empty(number),
        "get_fab": lambda *_: Fab("", bundle, {}),
        "pull_object": lambda _, name: contents[name],
        "confirm_message_received": lambda *_: None,
    }
    receive = supernode._given_up_whole(loop)
    assert receive is not None
    found = receive(state=state, object_store=store, node_config={}, trusted_entities=None, **{**calls, ends_at: over})
    assert found is None
    assert list(state.get_messages_legacy(is_reply=False)) == []
    assert [task.status.status for task in state.get_tasks()] == [Status.FINISHED]


def test_another_flower_is_noticed() -> None:
    assert supernode._given_up_whole(SimpleNamespace()) is None  # type: ignore[arg-type]
