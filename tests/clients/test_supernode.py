"""What Flower's SuperNode does otherwise at a silo; a real one, with real processes, is in `tests/integration/`."""

from __future__ import annotations

import importlib
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message, RecordDict
from flwr.proto.message_pb2 import PushObjectRequest
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.retry import make_simple_http_retry_invoker
from flwr.supercore.run import Run, RunNotRunningException
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.nodestate import NodeStateFactory

from clients import supernode
from fedmodel.crypto import Purpose
from fedmodel.errors import CryptoError
from fedmodel.system.supervision import Facts
from fedmodel.wire.bundle import make_bundle
from tests.tls_kits import Kit, kit

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


# --- Whom it speaks to ------------------------------------------------------------------------------------------------


@contextmanager
def answering(context: ssl.SSLContext) -> Iterator[tuple[str, list[bytes]]]:
    """A server of one connection that says 200 to what it reads; its address, and what it was sent inside TLS."""
    sent: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as plain:
        plain.settimeout(120)

        def serve() -> None:
            with suppress(OSError), context.wrap_socket(plain.accept()[0], server_side=True) as connection:
                connection.settimeout(120)
                while read := connection.recv(65536):
                    sent.append(read)
                    if b"".join(sent).endswith(b"THE END"):
                        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"https://127.0.0.1:{plain.getsockname()[1]}", sent
        finally:
            thread.join(120)
    assert not thread.is_alive()


def pushed(silo: Kit, address: str, meant: Kit) -> None:
    """Send an object as a node does, to whom it takes for the server."""

    def recognise(certificate: bytes) -> None:
        if ssl.DER_cert_to_PEM_cert(certificate).encode() != meant.certificate:
            raise CryptoError("another key than the roster has")

    nothing: Any = None
    node = supernode.Node(address, nothing, nothing, nothing, recognise, nothing, b"")
    client = supernode._client_class(node, silo.client(), Facts({}), supernode._Activity())(address)
    with client._client:
        again = make_simple_http_retry_invoker()  # as Flower sends
        again.max_tries = 3
        content = b"THE UPDATE" * 1000 + b"THE END"
        again.invoke(client.PushObject, PushObjectRequest(object_id="a" * 64, object_content=content))


def test_an_impostor_with_a_certificate_of_the_authority_is_sent_nothing(tmp_path: Path) -> None:
    """A server's old kit, say. And it is no connection that failed: Flower would try again, and nobody would know."""
    silo, server, old = kit(tmp_path / "n"), kit(tmp_path / "s", Purpose.SERVER), kit(tmp_path / "o", Purpose.SERVER)
    with answering(server.server()) as (address, sent):
        pushed(silo, address, server)
    assert b"THE UPDATE" in b"".join(sent)
    with (
        answering(old.server()) as (address, sent),
        pytest.raises(CryptoError, match="another key than the roster has"),
    ):
        pushed(silo, address, server)
    assert sent == []
