"""A deployed server's process: its kit is unlocked, its children are started and kept up.

What holds of every party's, and what does not, is in `fedmodel.provision.in_use`.
"""

from __future__ import annotations

import os
import socket
import ssl
from functools import partial
from pathlib import Path

from fedmodel.crypto.sealed import Opener
from fedmodel.crypto.signed_roster import AUTHORITY
from fedmodel.crypto.transport import server_context, split_address
from fedmodel.errors import ConfigError
from fedmodel.provision import (
    Unlocked,
    accept_revocations,
    read_federation_roster,
    read_revocations,
    read_server_law,
)
from fedmodel.provision.in_use import LINK, SECRET_BYTES, in_use, keep_up, refusals_kept
from fedmodel.provision.kits import CERTIFICATE, REVOKED, ROSTER_FILE, TLS_KEY
from fedmodel.system.supervision import Child


def serve(kit: Path, opener: Opener) -> int:
    """Keep a server up until it is told to end; return the number of the signal that told it.

    Raises:
        FedmodelError: When its kit is not a server's, not whole, or runs already.
    """
    kit = kit.resolve()
    with refusals_kept(kit), in_use(kit, opener) as (own, scratch):
        if own.name != "server":
            raise ConfigError(f"{kit}: is the kit of silo {own.name!r}; start it with `fedmodel silo start`")
        law = read_server_law(kit)
        _server_tls(kit, own)  # what is wrong with it is said here, and not again and again in a log
        check_listen(law.listen)
        children = _server_children(kit, own, law.listen, law.device, scratch)
        return keep_up(children, kit)


def check_listen(address: str) -> None:
    """Refuse an address that the server could not listen on.

    Raises:
        ConfigError: When another program has it, or this machine does not.
    """
    host, port = split_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        raise ConfigError(
            f"server.toml: listen = {address!r} cannot be listened on: {error.strerror}; stop what has the port, or"
            " name an address of this machine"
        ) from error


def _server_children(kit: Path, own: Unlocked, listen: str, device: str, scratch: Path) -> list[Child]:
    """Import all that a server needs, and return its processes."""
    from server.coordinator import Desk, run_coordinator
    from server.server_app import app
    from server.superlink import Link, run_superlink

    host, port = split_address(listen)
    socket, secret = scratch / LINK, os.urandom(SECRET_BYTES)
    watched = tuple(kit / name for name in (ROSTER_FILE, REVOKED, CERTIFICATE))
    link = Link(host, port, partial(_server_tls, kit, own), kit / ROSTER_FILE, watched, socket, secret)
    desk = Desk(kit, partial(_nodes, kit), app, device, socket, secret)
    return [
        Child("superlink", partial(run_superlink, link), kit / "logs" / "superlink.log", ("coordinator",)),
        Child("coordinator", partial(run_coordinator, desk), kit / "logs" / "coordinator.log"),
    ]


def _server_tls(kit: Path, own: Unlocked) -> ssl.SSLContext:
    """Return the context of the fleet's port. Sensitive."""
    revoked = read_revocations(kit)
    context = server_context(kit / CERTIFICATE, kit / TLS_KEY, own.tls_password, kit / AUTHORITY, revoked)
    accept_revocations(kit, revoked)
    return context


def _nodes(kit: Path) -> dict[str, str]:
    """Return the public keys of the silos' nodes by silo."""
    return {silo.name: silo.node for silo in read_federation_roster(kit).silos if silo.node is not None}
