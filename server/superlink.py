"""Flower's SuperLink, with its two sides apart: all of it on a Unix socket, the fleet's calls alone on TCP.

Flower serves everything on one port, the call that starts a run with it. Here two apps over one state are served from
one event loop: Flower's own, whole, on a socket that this account alone can enter; and one that has the routes of the
fleet and no other, behind `server.door`, over TLS 1.3 with client certificates. The second leaves out the middleware of
what it does not have, which is most of what Flower's own takes for a request.

Its state is in memory: messages of silos lie nowhere on a disk. What a restart forgets is made up for by the
coordinator, which registers the nodes again and takes the run up where its checkpoint stands. So it is started again
whenever the roster or the list of revoked certificates changes, and a revoked silo's connection ends then.

Who is refused by TLS is told and logged why by `fedmodel.crypto.transport`, whose contexts this is given.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvicorn
from fastapi import FastAPI, HTTPException
from flwr.common.constant import ISOLATION_MODE_PROCESS, TRANSPORT_TYPE_GRPC_RERE
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME
from flwr.supercore.error import http_error_translator
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
from uvicorn.protocols.http.h11_impl import H11Protocol

from fedmodel.supervision import Facts
from fedmodel.wire.runtime import listen, log_plainly
from server.door import Door, Seldom

logger = logging.getLogger(__name__)

_LOOK_S: Final = 1.0
_GRACE_S: Final = 2
_HANDSHAKE_S: Final = 10.0
_MOST_CONNECTIONS: Final = 4_096
# Switches by which Flower would open ports of its own, or keep its state on a disk.
_SWITCHES: Final = ("FLWR_INTERNAL_GRPC_CONTROL_API", "FLWR_INTERNAL_GRPC_FLEET_API", "FLWR_OIDC_ENABLED")


@dataclass(frozen=True)
class Link:
    """What a SuperLink is started with.

    Attributes:
        host: Of the fleet's port, an address of this machine.
        port: The fleet's.
        tls: Makes the context of the fleet's port, from the files as they are when it is called.
        roster: The signed roster's file.
        watched: Files whose change starts it again.
        socket: Where all of Flower's app is served.
        secret: What whoever runs tasks shares with it. Sensitive.
    """

    host: str
    port: int
    tls: Callable[[], ssl.SSLContext]
    roster: Path
    watched: tuple[Path, ...]
    socket: Path
    secret: bytes


def run_superlink(link: Link, _facts: Facts) -> None:
    """Serve until a signal comes, or a watched file changes."""
    log_plainly()
    _brace()
    for switch in _SWITCHES:
        os.environ.pop(switch, None)
    seen = _stamps(link.watched)
    context = link.tls()
    app = create_app(_flower_settings(link), SuperLinkLifespan)
    asyncio.run(_serve(link, app, context, seen))


def _brace() -> None:
    """Stand what anybody can do who reaches the port: connections that say nothing cost a file, and not for long."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    asyncio.constants.SSL_HANDSHAKE_TIMEOUT = _HANDSHAKE_S  # type: ignore[attr-defined]  # uvicorn has no option for it
    logging.getLogger("asyncio").addFilter(_OnceInAWhile())


class _OnceInAWhile(logging.Filter):
    """Lets one line of a kind through in ten seconds: asyncio writes one for each connection that it cannot take."""

    def __init__(self) -> None:
        super().__init__()
        self._told = Seldom()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a line is new."""
        return self._told.is_new(record.msg)


class _Impatient(H11Protocol):
    """HTTP that does not wait for ever for a first request."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give the other side some seconds to ask something."""
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(_HANDSHAKE_S, self.timeout_keep_alive_handler)


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
    """Refuses messages that a node sends in another's name, or that answer nothing: Flower takes a sender's word."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Look at what a node pushes, once its signature was checked."""
        pushed = getattr(request.state, "protobuf_request", None)
        if isinstance(pushed, PushMessagesRequest):
            for message in pushed.messages_list:
                told = message.metadata
                if told.src_node_id != pushed.node.node_id or not told.reply_to_message_id:
                    logger.warning("refused: a node pushed a message that is no answer of its own")
                    raise HTTPException(status_code=403, detail="a node pushes answers of its own")
        return await call_next(request)


def fleet_app(whole: FastAPI) -> FastAPI:
    """Return an app of the fleet's routes alone, over the state of Flower's own.

    Every request is translated, and authenticated by the node's key, by Flower's own middleware, in Flower's order.
    """
    fleet = FastAPI(
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        middleware=[
            Middleware(BaseHTTPMiddleware, dispatch=http_error_translator),
            Middleware(ProtobufTranslationMiddleware),
            Middleware(NodeAuthMiddleware),
            Middleware(OwnMessages),
        ],
    )
    fleet.state = whole.state
    fleet.include_router(health.router)
    fleet.include_router(fleet_router)
    return fleet


async def _serve(link: Link, app: FastAPI, context: ssl.SSLContext, seen: list[object]) -> None:
    """Serve both sides until it is time to end."""
    common = {"ws": "none", "access_log": False, "log_config": None, "proxy_headers": False, "server_header": False}
    inside = _Quiet(uvicorn.Config(app, lifespan="on", timeout_graceful_shutdown=_GRACE_S, **common))  # type: ignore[arg-type]
    outside = _Quiet(
        uvicorn.Config(
            Door(fleet_app(app), link.roster),
            host=link.host,
            port=link.port,
            lifespan="off",
            http=_Impatient,
            limit_concurrency=_MOST_CONNECTIONS,
            ssl_context_factory=lambda _config, _default: context,
            timeout_graceful_shutdown=_GRACE_S,
            **common,  # type: ignore[arg-type]
        )
    )
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
    """A server that leaves signals to whoever runs two of them."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def _stamps(paths: tuple[Path, ...]) -> list[object]:
    """Return what tells a file from another in its place."""
    found: list[object] = []
    for path in paths:
        try:
            stat = path.stat()
            found.append((stat.st_ino, stat.st_size, stat.st_mtime_ns))
        except FileNotFoundError:
            found.append(None)
    return found
