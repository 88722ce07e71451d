"""The silo's process that keeps its connection to the server: Flower's SuperNode, started from Python.

Flower's own node runs here as it is, but for what it has no option for. Each such thing is replaced in `_adapt`, which
refuses to start where the name that is replaced is not in the installed Flower any more.

    a client certificate      its HTTP client gets an SSL context of ours, and uses no proxy; to a server that has
                              another key than the roster says nothing is sent
    the pause between polls   3 s becomes a tenth of the time since the last message, from 0.1 s to 3 s
    waiting for the answer    0.5 s becomes 0.02 s
    waiting for an object     1 s, when it is announced before it is there, becomes 0.01 s, doubling
    a run that ends meanwhile leaves no task behind whose message never comes whole, and no answer cut off
    heartbeats                30 s becomes 10 s, so that the server takes a killed silo for gone after 20 s, not 60 s

A node that was killed is online for the server until then, and Flower refuses it in the meantime. So whoever starts
this process again passes on the number that the node had, and the node signs off before it signs in.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import logging
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import httpx
import uvicorn
from flwr.common.constant import ISOLATION_MODE_PROCESS
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    ActivateNodeResponse,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
    PushMessagesResponse,
)
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.protobuf.client import ProtobufClientInterceptor
from flwr.supercore.run import RunNotRunningException
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.main import create_app
from flwr.supernode.nodestate import NodeStateFactory

from clients.connecting import Approach, Look, find_obstacle
from fedmodel.crypto.transport import recognising, unrecognised_in
from fedmodel.errors import ConfigError, CryptoError
from fedmodel.system.supervision import Facts
from fedmodel.wire.runtime import hasten, listen, log_plainly, replace_name

logger = logging.getLogger(__name__)

NODE: Final = "node"
_FLOWER_POLL_S: Final = 3
_SHARE: Final = 0.1  # an idle silo costs the server a request every three seconds, a busy one answers at once
_SHORTEST_PAUSE_S: Final = 0.1
_REPLY_PAUSE_S: Final = 0.02
_HEARTBEAT_S: Final = 10
_TIMEOUT_S: Final = 30.0
_START_S: Final = 30.0
_OCCUPIED_PAUSE_S: Final = 0.5
_TOLD_AFTER: Final = 4


@dataclass(frozen=True)
class Node:
    """What a SuperNode is started with.

    Attributes:
        address: The server's, "host:port".
        tls: Makes the context of the connection, from the files as they are when it is called.
        key: Reads the node's key, of an elliptic curve, as Flower takes it. Sensitive.
        look: Looks at the server's certificate and roster before the node connects.
        recognise: Looks at the certificate, in DER, of whoever is connected to from then on, before anything is sent;
            raises a FedmodelError where it is another's.
        socket: Where the Runtime API is served.
        secret: What whoever runs tasks shares with it. Sensitive.
    """

    address: str
    tls: Callable[[], ssl.SSLContext]
    key: Callable[[], Any]
    look: Look
    recognise: Callable[[bytes], None]
    socket: Path
    secret: bytes


def run_supernode(node: Node, facts: Facts) -> None:
    """Connect to the server, and carry messages between it and the executor until a signal comes or it forgets us."""
    log_plainly()
    key, tls = node.key(), node.tls()
    patient = facts.get(NODE) is not None
    find = partial(find_obstacle, node.address, tls, node.look)
    Approach(find, facts.say, facts.give_up, patient=patient).wait()
    activity = _Activity()
    _adapt(node, tls, facts, activity)
    objects = ObjectStoreFactory()
    states = NodeStateFactory(objectstore_factory=objects)
    server = _serve_runtime(node, states)
    try:
        flower = importlib.import_module("flwr.supernode.start_client_internal")
        flower.start_client_internal(
            state_factory=states,
            server_address=node.address,
            node_config={},
            insecure=False,
            authentication_keys=(key, key.public_key()),
            isolation=ISOLATION_MODE_PROCESS,
            runtime_api_address="",
            superexec_auth_secret=node.secret,
            runtime_dependency_install=False,
        )
    finally:
        server.should_exit = True


def _serve_runtime(node: Node, states: NodeStateFactory) -> uvicorn.Server:
    """Serve the Runtime API on the socket, in a thread; return when it is there."""
    app = create_app(state_factory=states, superexec_auth_secret=node.secret)
    config = uvicorn.Config(app, ws="none", access_log=False, log_config=None, proxy_headers=False, server_header=False)
    server = uvicorn.Server(config)
    listening = listen(node.socket)
    thread = threading.Thread(target=server.run, args=([listening],), name="runtime-api", daemon=True)
    thread.start()
    deadline = time.monotonic() + _START_S
    while not server.started:
        if not thread.is_alive() or time.monotonic() >= deadline:
            raise ConfigError(f"Flower's Runtime API did not start on {node.socket}")
        time.sleep(0.01)
    return server


class _Activity:
    """When something last happened."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def note(self) -> None:
        self._last = time.monotonic()

    def pause_s(self) -> float:
        """Return for how long to wait before asking again."""
        return min(max((time.monotonic() - self._last) * _SHARE, _SHORTEST_PAUSE_S), float(_FLOWER_POLL_S))


class _Clock:
    """Stands for the module `time` in Flower's loop."""

    def __init__(self, activity: _Activity) -> None:
        self._activity = activity

    def sleep(self, seconds: float) -> None:
        """Wait, not as long as Flower would."""
        time.sleep(self._activity.pause_s() if seconds == _FLOWER_POLL_S else min(seconds, _REPLY_PAUSE_S))

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


def _adapt(node: Node, tls: ssl.SSLContext, facts: Facts, activity: _Activity) -> None:
    """Replace what Flower has no option for.

    Raises:
        ConfigError: When the installed Flower does not have it.
    """
    loop = importlib.import_module("flwr.supernode.start_client_internal")
    connection = importlib.import_module("flwr.supernode.fleet_http_connection")
    heartbeat = importlib.import_module("flwr.supercore.heartbeat")
    replace_name(loop, "time", _Clock(activity))
    hasten(loop, "pull_objects")
    for name, instead in (("_pull_and_store_message", _whole), ("_push_messages", _patient)):
        real = getattr(loop, name, None)
        replace_name(loop, name, real and partial(instead, loop, real=real))
    replace_name(connection, "FleetHttpClient", _client_class(node, tls, facts, activity))
    replace_name(connection, "HEARTBEAT_DEFAULT_INTERVAL", _HEARTBEAT_S)
    replace_name(heartbeat, "HEARTBEAT_DEFAULT_INTERVAL", _HEARTBEAT_S)


def _whole(
    loop: ModuleType, *, real: Any, receive: Any, pull_object: Any, confirm_message_received: Any, **others: Any
) -> Any:
    """Receive a message as Flower does, but begin nothing before all of it is here.

    Flower makes its task first. Where the run ends before its objects came, it forgets the message and keeps the task:
    whoever takes that waits for ever, and all other messages wait for it.
    """
    contents: dict[str, bytes] = {}

    def received() -> Any:
        found = receive()
        if found is None:
            return None
        message, tree = found
        names = list(dict.fromkeys(part.object_id for part in loop.iterate_object_tree(tree)))
        try:
            contents.update(loop.pull_objects(names, lambda name: pull_object(message.metadata.run_id, name)))
        except Exception as error:
            logger.warning("message %s did not come whole: %s", message.metadata.message_id, error)
            return None
        return found

    def confirmed(run: int, name: str) -> None:
        with contextlib.suppress(RunNotRunningException):  # nobody waits for the answer, and it is thrown away
            confirm_message_received(run, name)

    return real(
        receive=received,
        pull_object=lambda _, name: contents.pop(name),
        confirm_message_received=confirmed,
        **others,
    )


def _patient(loop: ModuleType, *, real: Any, send: Any, object_store: Any, **others: Any) -> Any:
    """Push answers as Flower does; one whose run has ended is thrown away when all of it is there, and not before.

    It is announced before its objects are: whoever still brings those would find no place for them, and die of it.
    """

    def sent(message: Any, tree: Any, seconds: float) -> Any:
        try:
            return send(message, tree, seconds)
        except RunNotRunningException:
            deadline = time.monotonic() + _TIMEOUT_S
            names = [part.object_id for part in loop.iterate_object_tree(tree)]
            while any(object_store.get(name) == b"" for name in names) and time.monotonic() < deadline:
                time.sleep(_REPLY_PAUSE_S)
            raise

    return real(send=sent, object_store=object_store, **others)


class _Certain(httpx.Client):
    """Has an unrecognised server end the process, which looks at its roster when it is started again.

    Flower takes it for a connection that failed, and would try again for ever.
    """

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        try:
            return super().send(request, **options)
        except httpx.ConnectError as error:
            if unrecognised := unrecognised_in(error):
                raise CryptoError(str(unrecognised)) from error
            raise


def _client_class(node: Node, tls: ssl.SSLContext, facts: Facts, activity: _Activity) -> type[FleetHttpClient]:
    """Return Flower's client with our TLS, that signs off before it signs in."""

    def still_recognise(response: httpx.Response) -> None:
        """Look again: the roster may have become newer while a connection was kept."""
        node.recognise(response.extensions["network_stream"].get_extra_info("ssl_object").getpeercert(True) or b"")

    recognising(tls, node.recognise)

    class SiloClient(FleetHttpClient):
        def __init__(self, base_url: str, *, interceptors: Sequence[ProtobufClientInterceptor] = (), **_: Any) -> None:
            super().__init__(base_url, interceptors=interceptors, verify=False)
            self._client.close()
            hooks: dict[str, list[Callable[..., Any]]] = {"response": [still_recognise]}
            self._client = _Certain(verify=tls, timeout=_TIMEOUT_S, trust_env=False, event_hooks=hooks)

        def ActivateNode(self, request: ActivateNodeRequest) -> ActivateNodeResponse:  # noqa: N802 - Flower's
            self._sign_off()
            for attempt in itertools.count(1):
                try:
                    answer = super().ActivateNode(request)
                    break
                except httpx.HTTPStatusError as error:
                    if not _is_occupied(error):
                        raise
                if attempt == _TOLD_AFTER:  # a server that has just started registers its nodes within moments
                    facts.say(_OCCUPIED)
                time.sleep(_OCCUPIED_PAUSE_S)
            facts.tell(NODE, str(answer.node_id))
            facts.say("connected to the server")
            activity.note()
            return answer

        def PullMessages(self, request: PullMessagesRequest) -> PullMessagesResponse:  # noqa: N802 - Flower's
            answer = super().PullMessages(request)
            if answer.messages_list:
                activity.note()
            return answer

        def PushMessages(self, request: PushMessagesRequest) -> PushMessagesResponse:  # noqa: N802 - Flower's
            activity.note()
            return super().PushMessages(request)

        def _sign_off(self) -> None:
            """Have the server take the node's last life for ended."""
            if last := facts.get(NODE):
                with contextlib.suppress(httpx.HTTPError):  # it may know so already, or have forgotten the node
                    self.DeactivateNode(DeactivateNodeRequest(node_id=int(last)))

    return SiloClient


_OCCUPIED: Final = (
    "the server does not take this silo yet: for it this silo is connected already; either its last connection has not"
    " been given up yet, which takes 20 s, or another machine has the key of its node; trying again"
)


def _is_occupied(error: httpx.HTTPStatusError) -> bool:
    """Return whether the server refused the node as one that is online, or that it does not have yet."""
    told = FlowerError.from_json(error.response.text)
    return told is not None and told.code == ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED
