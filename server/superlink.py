"""Flower's SuperLink, with its two sides apart: all of it on a Unix socket, the fleet's calls alone on TCP.

Flower serves everything on one port, the call that starts a run with it. Here its own app is built once and served
twice from one event loop: whole on a socket that this account alone can enter, and behind `server.door` over TLS 1.3
with client certificates.

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
import signal
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvicorn
from flwr.common.constant import ISOLATION_MODE_PROCESS, TRANSPORT_TYPE_GRPC_RERE
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME
from flwr.superlink.auth_plugin import NoOpControlAuthnPlugin
from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
from flwr.superlink.config_loader import SuperLinkLifespanConfig
from flwr.superlink.main import create_app

from fedmodel.supervision import Facts
from fedmodel.wire.runtime import listen, log_plainly
from server.door import App, Door

logger = logging.getLogger(__name__)

_LOOK_S: Final = 1.0
_GRACE_S: Final = 2
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
    for switch in _SWITCHES:
        os.environ.pop(switch, None)
    seen = _stamps(link.watched)
    context = link.tls()
    app = create_app(_flower_settings(link), SuperLinkLifespan)
    asyncio.run(_serve(link, app, context, seen))


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


async def _serve(link: Link, app: App, context: ssl.SSLContext, seen: list[object]) -> None:
    """Serve both sides until it is time to end."""
    common = {"ws": "none", "access_log": False, "log_config": None, "proxy_headers": False, "server_header": False}
    inside = _Quiet(uvicorn.Config(app, lifespan="on", timeout_graceful_shutdown=_GRACE_S, **common))  # type: ignore[arg-type]
    outside = _Quiet(
        uvicorn.Config(
            Door(app, link.roster),
            host=link.host,
            port=link.port,
            lifespan="off",
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
