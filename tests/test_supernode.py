"""What Flower's SuperNode does otherwise at a silo; a real one, with real processes, is in `tests/integration/`."""

from __future__ import annotations

import importlib
import threading
from typing import Any

import pytest
from flwr.app import Message, RecordDict
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
    given = {**calls, ends_at: over}
    common = {"state": state, "object_store": store, "node_config": {}, "trusted_entities": None}
    supernode._whole(loop, real=loop._pull_and_store_message, **common, **given)
    held, tasks = state.get_messages_legacy(is_reply=False), state.get_tasks()
    if ends_at == "pull_object":
        assert (list(held), list(tasks)) == ([], [])
    else:  # all of it is here, so it can be answered
        assert len(held) == len(tasks) == 1
        assert all(store.get(name) == content for name, content in contents.items())


def test_a_message_that_comes_whole_is_as_flower_would_have_it() -> None:
    loop = importlib.import_module("flwr.supernode.start_client_internal")
    objects = ObjectStoreFactory()
    state, store = NodeStateFactory(objectstore_factory=objects).state(), objects.store()
    state.set_node_id(1)
    asked = message()
    contents = {name: part.deflate() for name, part in get_all_nested_objects(asked).items()}
    confirmed: list[str] = []
    run = supernode._whole(
        loop,
        real=loop._pull_and_store_message,
        state=state,
        object_store=store,
        node_config={},
        trusted_entities=None,
        receive=lambda: (asked, get_object_tree(asked)),
        get_run=Run.create_empty,
        get_fab=lambda *_: Fab("", make_bundle(), {}),
        pull_object=lambda _, name: contents[name],
        confirm_message_received=lambda _, name: confirmed.append(name),
    )
    assert (run, confirmed) == (RUN, [asked.metadata.message_id])
    assert {name: store.get(name) for name in contents} == contents
    assert len(state.get_tasks()) == 1


def test_an_answer_whose_run_has_ended_is_kept_until_all_of_it_is_there() -> None:
    """Its executor has announced it, and still brings its objects."""
    loop = importlib.import_module("flwr.supernode.start_client_internal")
    answer = message()
    store: dict[str, bytes] = dict.fromkeys(get_all_nested_objects(answer), b"")
    brought: list[bool] = []

    def over(*_: Any) -> Any:
        threading.Timer(0.1, lambda: store.update(dict.fromkeys(store, b"there"))).start()
        raise RunNotRunningException

    def real(*, send: Any, **_: Any) -> None:
        with pytest.raises(RunNotRunningException):
            send(answer, get_object_tree(answer), 0.0)
        brought.append(all(store.values()))

    supernode._patient(loop, real=real, send=over, object_store=store)
    assert brought == [True]
