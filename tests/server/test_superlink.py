"""The app behind the fleet's port, over Flower's own state: what a node can do in its own name, and in another's."""

from __future__ import annotations

import asyncio
import json
import logging
from asyncio import sslproto
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from fastapi import FastAPI
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import PullMessagesRequest, PullMessagesResponse, PushMessagesRequest
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import ObjectTree, PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.date import now
from flwr.supercore.inflatable.inflatable_object import get_object_tree
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.supercore.runtime_version_compatibility import RuntimeVersionMetadata
from flwr.supercore.task_identity import TaskIdentity

from server.gateway import Gateway
from server.share import Limits, Shares
from server.superlink import Link, Sparing, fleet_app, silos_in, whole_app


@dataclass
class Silo:
    """A node with its key."""

    node_id: int
    key: ec.EllipticCurvePrivateKey

    def headers(self) -> dict[str, str]:
        time = now().isoformat()
        signature = sign_message(self.key, time.encode())
        return {
            **dict(RuntimeVersionMetadata.from_local_component("SuperNode").as_metadata()),
            "content-type": PROTOBUF_MEDIA_TYPE,
            "accept": PROTOBUF_MEDIA_TYPE,
            FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(public_key_to_bytes(self.key.public_key())).decode(),
            TIMESTAMP_HEADER: time,
            FLEET_HTTP_SIGNATURE_HEADER: b64encode(signature).decode(),
        }


class Fleet:
    """Flower's state with two nodes, and the fleet's app over it."""

    def __init__(self, folder: Path) -> None:
        link = Link("127.0.0.1", 1, lambda: None, folder / "none", (), folder / "socket", bytes(32))  # type: ignore[arg-type,return-value]
        self.whole: FastAPI = whole_app(link, silos=2)
        self.shares = Shares(Limits.of(2, 1_024), ("north", "south"))
        self.app = Gateway(fleet_app(self.whole, self.shares), folder / "roster.json", self.shares)
        self.north, self.south = self._node("north"), self._node("south")

    def _node(self, name: str) -> Silo:
        key, state = ec.generate_private_key(ec.SECP256R1()), self.whole.state.linkstate_factory.state()
        node_id = state.create_node(name, name, public_key_to_bytes(key.public_key()), 30)
        state.activate_node(node_id, 30)
        return Silo(node_id, key)

    def post(self, path: str, silo: Silo, body: bytes | AsyncIterator[bytes], **headers: str) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="https://server") as client:
                return await client.post(f"/v1/fleet/{path}", content=body, headers={**silo.headers(), **headers})

        return asyncio.run(ask())


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return Fleet(tmp_path_factory.mktemp("fleet"))


def push(fleet: Fleet, silo: Silo, source: int, reply_to: str) -> int:
    """Push a message as a node does, whoever it says that it is of; return the status."""
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, source
    made = Message(RecordDict({"x": ConfigRecord({"a": 1})}), 1, "train")
    made.metadata.__dict__["_message_id"] = made.object_id
    told = message_to_proto(remove_content_from_message(made))
    told.metadata.reply_to_message_id = reply_to
    body = PushMessagesRequest(
        node=Node(node_id=silo.node_id), messages_list=[told], message_object_trees=[get_object_tree(made)]
    )
    return fleet.post("push-messages", silo, body.SerializeToString()).status_code


def test_a_node_sends_in_its_own_name_and_in_no_other(fleet: Fleet) -> None:
    """Flower takes a sender's word for who it is, and would put a message "of the server" into another's queue."""
    assert push(fleet, fleet.south, fleet.north.node_id, "a" * 64) == 403
    assert push(fleet, fleet.south, 1, "a" * 64) == 403
    assert push(fleet, fleet.south, fleet.south.node_id, "") == 403
    # Its own answer goes on to Flower, which knows no such question.
    assert push(fleet, fleet.south, fleet.south.node_id, "a" * 64) != 403


def test_a_node_pushes_one_answer_and_announces_it_as_what_it_is(fleet: Fleet) -> None:
    """Flower reads the first message of a list and the first tree, and asks neither for the other."""
    node = Node(node_id=fleet.south.node_id)
    told, tree = ProtoMessage(), ObjectTree(object_id="b" * 64)
    told.metadata.src_node_id, told.metadata.reply_to_message_id = node.node_id, "a" * 64
    told.metadata.message_id = tree.object_id
    for messages, trees in (([], []), ([told], []), ([told, told], [tree, tree]), ([told], [tree, tree])):
        body = PushMessagesRequest(node=node, messages_list=messages, message_object_trees=trees)
        answer = fleet.post("push-messages", fleet.south, body.SerializeToString())
        assert (answer.status_code, "one answer at a time" in answer.text) == (403, True)
    other = ObjectTree(object_id="c" * 64)
    body = PushMessagesRequest(node=node, messages_list=[told], message_object_trees=[other])
    answer = fleet.post("push-messages", fleet.south, body.SerializeToString())
    assert (answer.status_code, "announces the message that it pushes" in answer.text) == (403, True)


def test_an_object_of_no_announcement_is_not_looked_for(fleet: Fleet) -> None:
    body = PushObjectRequest(node=Node(node_id=fleet.south.node_id), object_id="a" * 64, object_content=b"x")
    assert fleet.post("push-object", fleet.south, body.SerializeToString()).status_code == 400


def test_a_line_of_a_kind_is_written_some_times_and_the_rest_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("server.superlink.time.monotonic", lambda: clock[0])
    sparing = Sparing()

    def passes(message: str, *arguments: object) -> str | None:
        record = logging.LogRecord("x", logging.INFO, "", 0, message, arguments, None)
        return record.getMessage() if sparing.filter(record) else None

    assert [passes("pulled %d", number) for number in range(300)] == [f"pulled {number}" for number in range(300)]
    assert [passes("pulled %d", number) for number in range(100)] == [None] * 100
    assert passes("another") == "[100 lines were left out] another"
    clock[0] = 1.0
    assert passes("pulled %d", 7) == "pulled 7"
    # Whoever can choose a line's kind gets no further: kinds past a thousand are one.
    written = sum(passes(f"kind {number}") is not None for number in range(5_000))
    assert written < 1_000 + 300


def test_a_roster_that_cannot_be_read_has_nobody_in_it(tmp_path: Path) -> None:
    roster = tmp_path / "roster.json"
    assert silos_in(roster) == frozenset()
    for text in ("", "[]", "{}", '{"roster": {"members": [{"name": "north"}]}}', '{"roster": {"members": 3}}'):
        roster.write_text(text)
        assert silos_in(roster) == frozenset()
    members = [{"name": "server", "role": "server"}, {"name": "north", "role": "silo"}]
    roster.write_text(json.dumps({"roster": {"members": members}}))
    assert silos_in(roster) == {"north"}


def test_asyncio_has_what_is_set_of_it() -> None:
    assert isinstance(sslproto.SSLProtocol.max_size, int)


def test_a_node_pulls_its_own_and_nobody_elses(fleet: Fleet) -> None:
    own = PullMessagesRequest(node=Node(node_id=fleet.south.node_id)).SerializeToString()
    answer = fleet.post("pull-messages", fleet.south, own)
    assert answer.status_code == 200
    assert not PullMessagesResponse.FromString(answer.content).messages_list
    assert fleet.post("pull-messages", fleet.north, own).status_code == 401


@pytest.mark.parametrize("host", ["server/v1/health", "x?", "/health", "a@b", "server:1/../health"])
def test_no_host_leads_past_the_signature(fleet: Fleet, host: str) -> None:
    body = PullMessagesRequest(node=Node(node_id=fleet.north.node_id)).SerializeToString()
    assert fleet.post("pull-messages", fleet.south, body, host=host).status_code == 401


@pytest.mark.parametrize("path", ["/v1/control/list-runs", "/v1/runtime/acquire-task", "/docs", "/openapi.json"])
def test_the_fleets_app_has_no_route_but_the_fleets(fleet: Fleet, path: str) -> None:
    """Not even behind the door, should that be passed."""

    async def ask(app: Any, method: str) -> int:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="https://server") as client:
            return (await client.request(method, path, headers=fleet.south.headers())).status_code

    assert asyncio.run(ask(fleet_app(fleet.whole, fleet.shares), "POST")) == 404
    assert asyncio.run(ask(fleet_app(fleet.whole, fleet.shares), "GET")) == 404


def test_a_body_is_bounded_as_it_is_told(fleet: Fleet) -> None:
    """Before anybody's signature is looked at, Flower reads all of it."""
    assert fleet.post("pull-messages", fleet.south, b"", **{"content-length": str(2**30)}).status_code == 413


def test_a_body_is_bounded_as_it_comes(fleet: Fleet) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while read < 2**28:
            read += 2**20
            yield bytes(2**20)

    assert fleet.post("push-object", fleet.south, endless()).status_code >= 400
    assert read <= 34 * 2**20
