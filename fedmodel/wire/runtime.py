"""Flower's internal APIs on a Unix socket: the Runtime API as whoever runs a task sees it, and the Control API.

Flower serves both over TCP, the Control API to whoever holds the authority's certificate. Here they are served on a
socket in a folder that its owner alone can enter, so that neither can be reached from outside the machine at all.

One client is kept for all tasks: it signs its requests for a task with the secret that it shares with the API's server,
and shows the task's own token with all others. Nothing is retried here: a SuperLink or SuperNode that came back has
forgotten all tasks, so whoever lost its connection begins again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Final, Self

import httpx
from flwr.app import Context, Error, Message
from flwr.common.constant import SubStatus
from flwr.proto.runtime_pb2 import AcquireTaskRequest, SendTaskHeartbeatRequest
from flwr.proto.task_pb2 import Task
from flwr.supercore.constant import TASK_TOKEN_HEADER, TaskType
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor, SuperExecAuthHttpInterceptor
from flwr.supercore.logger import FLOWER_LOGGER
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufClientInterceptor, ProtobufRequestContext
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode.runtime import run_clientapp

from fedmodel.errors import ConfigError
from fedmodel.system.inert import InertFormatter

SERVER_TASK: Final = str(TaskType.SERVER_APP)
SILO_TASK: Final = str(TaskType.CLIENT_APP)

_ACQUIRE: Final = "/flwr.proto.Runtime/AcquireTask"
_BASE_URL: Final = "http://flower"  # httpx wants a host; the socket is the only way there is
_TIMEOUT_S: Final = 30.0
_BEAT_S: Final = 15.0  # Flower takes a task for lost after 60 s
_PULL_S: Final = 0.01  # Flower's own is a second
_LONGEST_PULL_S: Final = 1.0
_MOST_PULL_S: Final = 600.0
_LONGEST_SOCKET_PATH: Final = 100  # the kernel's bound is 107 bytes


class _Token:
    """Shows the token of the task in hand."""

    def __init__(self) -> None:
        self.token = ""

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        """Add the token to every request but the one for a task."""
        if context.rpc_method != _ACQUIRE and self.token:
            context.request.headers[TASK_TOKEN_HEADER] = self.token
        return call_next(context)


class SocketRuntime(RuntimeHttpClient):
    """The Runtime API on a Unix socket, for one task at a time.

    Args:
        path: The socket.
        component: Flower's name of who asks: "flwr-serverapp" or "flwr-clientapp".
        secret: What whoever may take tasks shares with the server of the API. Sensitive.
    """

    def __init__(self, path: Path, component: str, secret: bytes) -> None:
        self._task = _Token()
        interceptors: list[ProtobufClientInterceptor] = [
            RuntimeVersionHttpInterceptor(component_name=component),
            SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods={_ACQUIRE}),
            self._task,
        ]
        super().__init__(_BASE_URL, interceptors=interceptors, verify=False)
        self._client = _on_socket(self._client, path)

    def acquire(self, kind: str) -> Task | None:
        """Take the oldest waiting task of a kind, and be its owner from now on; None where there is none."""
        answer = self.AcquireTask(AcquireTaskRequest(supported_task_types=[kind]))
        if not answer.HasField("task") or not answer.token:
            return None
        self._task.token = answer.token
        return answer.task

    @contextmanager
    def beating(self) -> Iterator[Self]:
        """Say that the task in hand is being worked on, for as long as the block lasts."""
        done = threading.Event()
        thread = threading.Thread(target=self._beat, args=(done,), name="task-heartbeat", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            done.set()
            thread.join()

    def _beat(self, done: threading.Event) -> None:
        while not done.wait(_BEAT_S):
            with contextlib.suppress(httpx.HTTPError):  # the block's own requests fail too, and say why
                self.SendTaskHeartbeat(SendTaskHeartbeatRequest())


class SocketControl(ControlHttpClient):
    """The Control API on a Unix socket."""

    def __init__(self, path: Path) -> None:
        version = RuntimeVersionHttpInterceptor(component_name="flwr-cli")
        super().__init__(_BASE_URL, interceptors=[version], verify=False)
        self._client = _on_socket(self._client, path)


def answer_one(client: SocketRuntime, answer: Callable[[Message, Context, bytes], Message | Error]) -> bool:
    """Take a silo's next message, have it answered, and send the answer; return whether there was one.

    Args:
        client: Connected to the SuperNode.
        answer: Gets the message, its context and the bundle that came with it. What it raises is not sent anywhere.

    Raises:
        httpx.HTTPError: When the SuperNode does not answer, or not as it should.
    """
    if client.acquire(SILO_TASK) is None:
        return False
    hasten(run_clientapp, "pull_and_inflate_object_from_tree")
    with client.beating():
        message, context, _, bundle = run_clientapp.pull_task_input(client)
        reply = answer(message, context, bundle.content)
        if isinstance(reply, Error):
            reply = Message(reply, reply_to=message)
        run_clientapp.push_message(client, reply, context)
        run_clientapp.push_task_output(client=client, context=context, sub_status=SubStatus.COMPLETED, details="")
    return True


def replace_name(module: ModuleType, name: str, value: object) -> None:
    """Replace a name of Flower's, for what it has no option for.

    Raises:
        ConfigError: When there is none: the installed Flower is another than the one that this was written for.
    """
    if not hasattr(module, name):
        raise ConfigError(f"{module.__name__} has no {name!r}; fedmodel works with Flower 1.41, so install that again")
    setattr(module, name, value)


def hasten(module: ModuleType, name: str, most_s: float = _MOST_PULL_S) -> None:
    """Have one of Flower's functions that wait for objects ask again sooner: it is told of them before they are there.

    Args:
        module: Where it is used.
        name: Its name there.
        most_s: For how long it waits altogether.

    Raises:
        ConfigError: When there is none.
    """
    pull = getattr(module, name, None)
    pull = pull.func if isinstance(pull, partial) else pull
    pace = {"initial_backoff": _PULL_S, "backoff_cap": _LONGEST_PULL_S, "max_tries_per_object": None}
    replace_name(module, name, pull and partial(pull, max_time=most_s, **pace))


def listen(path: Path) -> socket.socket:
    """Return a listening Unix socket that its owner alone can connect to, in place of whatever lay there.

    Raises:
        OSError: When it cannot be made.
    """
    if len(os.fsencode(path)) > _LONGEST_SOCKET_PATH:
        raise OSError(f"{path} is too long for a Unix socket; set TMPDIR to a shorter folder")
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listening.bind(str(path))
    finally:
        os.umask(before)
    listening.listen(128)
    return listening


def log_plainly() -> None:
    """Send all that this process logs, Flower's lines too, to standard error: a line each, with its time, no colours.

    A request's own line is left out, and what is merely of use to Flower's developers.
    """
    FLOWER_LOGGER.handlers.clear()
    FLOWER_LOGGER.propagate = True
    FLOWER_LOGGER.setLevel(logging.INFO)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(InertFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for name in ("httpx", "httpcore", "uvicorn"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _on_socket(client: httpx.Client, path: Path) -> httpx.Client:
    """Return a client for a socket instead of one for the network; no proxy of the environment comes between."""
    client.close()
    transport = httpx.HTTPTransport(uds=str(path), verify=False)  # a socket has no TLS
    return httpx.Client(transport=transport, timeout=_TIMEOUT_S, trust_env=False)
