"""Flower's SuperLink in two parts: all of it on a Unix socket, and only the fleet's calls on TCP.

Flower serves everything on one port, also the call that starts a run. Here two apps over one state are served from one
event loop. One is Flower's own app, whole, on a socket that only this account can use. The other has only the routes of
the fleet, behind `server.port` and `server.gateway`, over TLS 1.3 with client certificates. It leaves out the
middleware of all other routes, which takes most of the time of a request in Flower's own app. `server.share` says how
much a silo may take of it, and `server.announced` bounds its messages.

The state is in memory: no message of a silo is on a disk. After a restart the coordinator registers the nodes again,
and resumes the run at its checkpoint. So the SuperLink is simply restarted whenever the roster or the list of revoked
certificates changes, and a revoked silo's connection ends then.

`fedmodel.crypto.transport`, which makes the TLS contexts, tells refused clients why, and logs it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import resource
import signal
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import uvicorn
from fastapi import FastAPI, HTTPException
from flwr.common.constant import ISOLATION_MODE_PROCESS, TRANSPORT_TYPE_GRPC_RERE
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import PushObjectRequest
from flwr.server.superlink.linkstate import linkstate_factory
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME
from flwr.supercore.error import http_error_translator
from flwr.supercore.object_store import object_store_factory
from flwr.supercore.protobuf.translation import ProtobufTranslationMiddleware
from flwr.supercore.routers import health
from flwr.superlink.auth_plugin import NoOpControlAuthnPlugin
from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
from flwr.superlink.config_loader import SuperLinkLifespanConfig
from flwr.superlink.main import create_app
from flwr.superlink.routers.fleet.node_auth import NodeAuthMiddleware
from flwr.superlink.routers.fleet.router import router as fleet_router
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from fedmodel.system.supervision import Facts
from fedmodel.wire.runtime import listen, log_plainly, replace_name
from server.announced import BoundedState, PartedStore, PastShare
from server.gateway import NOBODY, Gateway
from server.port import FleetServer, listen_at
from server.share import Bucket, Limits, Shares

logger = logging.getLogger(__name__)

_LOOK_S: Final = 1.0
_GRACE_S: Final = 2
_LINES_RATE, _LINES_BURST = 1.0, 300.0
_MOST_KINDS: Final = 1_000
# Switches by which Flower would open ports of its own, or keep its state on a disk.
_SWITCHES: Final = ("FLWR_INTERNAL_GRPC_CONTROL_API", "FLWR_INTERNAL_GRPC_FLEET_API", "FLWR_OIDC_ENABLED")


@dataclass(frozen=True)
class Link:
    """The settings that a SuperLink is started with.

    Attributes:
        host: The address of the fleet's port, on this machine.
        port: The fleet's port.
        tls: Makes the TLS context of the fleet's port, from the files as they are when it is called.
        roster: The signed roster's file.
        watched: Files whose change restarts it.
        socket: The Unix socket on which all of Flower's app is served.
        secret: The secret that it shares with the process that runs tasks. Sensitive.
        limits: Returns what silos may take of it, from the number of silos and the number of files it may open.
    """

    host: str
    port: int
    tls: Callable[[], ssl.SSLContext]
    roster: Path
    watched: tuple[Path, ...]
    socket: Path
    secret: bytes
    limits: Callable[[int, int], Limits] = Limits.of


def run_superlink(link: Link, _facts: Facts) -> None:
    """Serve until a signal comes, or a watched file changes."""
    log_plainly()
    files = _brace()
    for switch in _SWITCHES:
        os.environ.pop(switch, None)
    seen = _stamps(link.watched)
    context = link.tls()
    silos = silos_in(link.roster)
    shares = Shares(link.limits(len(silos), files), silos)
    asyncio.run(_serve(link, whole_app(link, len(silos)), context, shares, seen))


def _brace() -> int:
    """Allow as many open files as possible, and limit the lines of the log; return how many files may be open."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    for handler in logging.getLogger().handlers:
        handler.addFilter(Sparing())
    return most


class Sparing(logging.Filter):
    """Lets three hundred lines of a kind through at once, and then one a second, because peers can cause lines."""

    def __init__(self) -> None:
        super().__init__()
        self._kinds: dict[tuple[str, str], Bucket] = {}
        self._left_out = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a line is written."""
        kind = (record.name, str(record.msg))
        if kind not in self._kinds and len(self._kinds) >= _MOST_KINDS:
            kind = ("", "")
        now = time.monotonic()
        bucket = self._kinds.setdefault(kind, Bucket(_LINES_RATE, _LINES_BURST, now))
        if not bucket.take_if_there(now):
            self._left_out += 1
            return False
        if self._left_out:
            record.msg = f"[{self._left_out} lines were left out] {record.msg}"
            self._left_out = 0
        return True


def silos_in(roster: Path) -> frozenset[str]:
    """Return the names of a roster's silos; none if there is no readable roster.

    The signature is not checked: the file is this account's own, and says who has a share, not who is admitted.
    """
    try:
        members = json.loads(roster.read_bytes())["roster"]["members"]
        return frozenset(str(member["name"]) for member in members if member["role"] == "silo")
    except (OSError, ValueError, KeyError, TypeError):
        return frozenset()


def whole_app(link: Link, silos: int) -> FastAPI:
    """Return Flower's own app, over a state that bounds what nodes can store there.

    Raises:
        ConfigError: When the installed Flower is another version.
    """
    replace_name(object_store_factory, "InMemoryObjectStore", PartedStore)
    replace_name(linkstate_factory, "InMemoryLinkState", partial(BoundedState, silos))
    return create_app(_flower_settings(link), SuperLinkLifespan)


def _flower_settings(link: Link) -> SuperLinkLifespanConfig:
    return SuperLinkLifespanConfig(
        control_address="",
        health_server_address=None,
        host=link.host,
        port=link.port,
        insecure=False,
        certificates=None,
        superexec_auth_secret=link.secret,
        authn_plugin=NoOpControlAuthnPlugin(),
        event_log_plugin=None,
        fleet_event_log_plugin=None,
        enable_event_log=False,
        artifact_provider=None,
        enable_supernode_auth=True,
        fleet_api_type=TRANSPORT_TYPE_GRPC_RERE,
        fleet_api_address=None,
        simulation=False,
        ssl_ca_certfile=None,
        ssl_certfile=None,
        ssl_keyfile=None,
        database=FLWR_IN_MEMORY_DB_NAME,
        isolation=ISOLATION_MODE_PROCESS,
        runtime_dependency_install=False,
    )


class OwnMessages(BaseHTTPMiddleware):
    """Refuses messages that a node sends in another's name, that answer nothing, or that are too large for an answer.

    Flower believes what a sender says about itself, and keeps whatever comes.

    Args:
        app: The app behind this.
        shares: Logs refusals.
    """

    def __init__(self, app: ASGIApp, shares: Shares) -> None:
        super().__init__(app)
        self._shares = shares

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Check what a node pushes, after its signature was checked."""
        pushed = getattr(request.state, "protobuf_request", None)
        name: str = getattr(request.state, "silo", NOBODY)
        if isinstance(pushed, PushMessagesRequest) and (against := _against(pushed)):
            self._shares.tell(name, against)
            raise HTTPException(status_code=403, detail=against)
        if isinstance(pushed, PushObjectRequest) and not pushed.session_id:
            raise HTTPException(status_code=400, detail="an object is of no announcement")
        try:
            return await call_next(request)
        except PastShare as past:
            self._shares.tell(name, str(past))
            raise HTTPException(status_code=413, detail=str(past)) from None


def _against(pushed: PushMessagesRequest) -> str | None:
    """Return the reason to refuse a message that a node pushes, or None."""
    if len(pushed.messages_list) != 1 or len(pushed.message_object_trees) != 1:
        return "a node pushes one answer at a time"
    told = pushed.messages_list[0].metadata
    if told.src_node_id != pushed.node.node_id or not told.reply_to_message_id:
        return "a node pushes answers of its own"
    if told.message_id != pushed.message_object_trees[0].object_id:
        return "a node announces the message that it pushes"
    return None


def fleet_app(whole: FastAPI, shares: Shares) -> FastAPI:
    """Return an app with only the fleet's routes, over the state of Flower's own app.

    Flower's own middleware translates every request and authenticates it by the node's key, in Flower's order.
    """
    fleet = FastAPI(
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        middleware=[
            Middleware(BaseHTTPMiddleware, dispatch=http_error_translator),
            Middleware(ProtobufTranslationMiddleware),
            Middleware(NodeAuthMiddleware),
            Middleware(OwnMessages, shares=shares),
        ],
    )
    fleet.state = whole.state
    fleet.include_router(health.router)
    fleet.include_router(fleet_router)
    return fleet


async def _serve(link: Link, app: FastAPI, context: ssl.SSLContext, shares: Shares, seen: list[object]) -> None:
    """Serve both parts until it is time to end."""
    common = {"ws": "none", "access_log": False, "log_config": None, "proxy_headers": False, "server_header": False}
    inside = _Quiet(uvicorn.Config(app, lifespan="on", timeout_graceful_shutdown=_GRACE_S, **common))  # type: ignore[arg-type]
    config = uvicorn.Config(
        Gateway(fleet_app(app, shares), link.roster, shares),
        lifespan="off",
        timeout_keep_alive=shares.limits.header_s,
        timeout_graceful_shutdown=_GRACE_S,
        **common,  # type: ignore[arg-type]
    )
    outside = FleetServer(config, listen_at(link.host, link.port), context, shares)
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    listening = listen(link.socket)
    both = [asyncio.create_task(inside.serve([listening])), asyncio.create_task(outside.serve())]
    while not ending.is_set() and not any(task.done() for task in both):
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ending.wait(), _LOOK_S)
        if _stamps(link.watched) != seen:
            logger.warning("the roster or the list of revoked certificates changed; starting again with it")
            break
    inside.should_exit = outside.should_exit = True
    await asyncio.gather(*both)


class _Quiet(uvicorn.Server):
    """A server that leaves signals to the code that runs two of them."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def _stamps(paths: tuple[Path, ...]) -> list[object]:
    """Return marks that show whether files were replaced."""
    found: list[object] = []
    for path in paths:
        try:
            stat = path.stat()
            found.append((stat.st_ino, stat.st_size, stat.st_mtime_ns))
        except FileNotFoundError:
            found.append(None)
    return found
