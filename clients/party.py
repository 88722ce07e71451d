"""A deployed silo's process: its kit is unlocked, its children are started and kept up.

What holds of every party's, and what does not, is in `fedmodel.provision.in_use`.
"""

from __future__ import annotations

import logging
import os
import ssl
from functools import lru_cache, partial
from importlib import import_module
from pathlib import Path

from clients import policy
from fedmodel.crypto.certificates import load_node_key
from fedmodel.crypto.renewing import tls_key_hash
from fedmodel.crypto.sealed import Opener
from fedmodel.crypto.signed_roster import AUTHORITY
from fedmodel.crypto.transport import client_context
from fedmodel.errors import ConfigError, CryptoError, ProtocolError
from fedmodel.provision import (
    Unlocked,
    accept_roster,
    open_roster,
    read_authority,
    read_federation_roster,
    read_kit,
)
from fedmodel.provision.in_use import SECRET_BYTES, in_use, keep_up, refusals_kept
from fedmodel.provision.kits import CERTIFICATE, NODE_KEY, ROSTER_FILE, TLS_KEY, check_member
from fedmodel.system.packages import code_files, code_hash
from fedmodel.system.reach import module_of
from fedmodel.system.supervision import Child

logger = logging.getLogger(__name__)


def take_part(kit: Path, opener: Opener) -> int:
    """Keep a silo up until it is told to end; return the number of the signal that told it.

    Raises:
        FedmodelError: When its kit is not a silo's, not whole, or runs already, or the server will never take it.
    """
    from fedmodel.data import check_sources

    kit = kit.resolve()
    with refusals_kept(kit), in_use(kit, opener) as (own, scratch):
        if own.name == "server":
            raise ConfigError(f"{kit}: is the server's kit; start it with `fedmodel server start`")
        law = read_kit(kit).law
        policy.own_code(law.packages)  # as it is now, for as long as this silo is up; what is not so is said here
        check_sources(law, kit)
        if law.connection is None:
            raise ConfigError(f"{kit / 'silo.toml'}: names no server; add [connection] with its address")
        _silo_tls(kit, own)
        children = _silo_children(kit, own, law.connection.address, scratch)
        return keep_up(children, kit)


def _code() -> str:
    """Import all of a silo's code, and return its hash.

    Guarantee: none of it is read from a file any more once this has returned, so that what an upgrade puts there later
    is not run before the next start. What was not imported yet is read between two moments at which the files had this
    hash. The rest, this program and what opens its kit, was read as the process began: an upgrade at that very moment,
    before the first hash, is not noticed.

    Raises:
        ConfigError: When the files changed meanwhile.
    """
    before = code_hash()
    for name in code_files():
        import_module(module_of(name))
    if policy.own_code() != before:
        raise ConfigError("the files of fedmodel are being changed on this machine; start the silo once that is done")
    return before


def _silo_children(kit: Path, own: Unlocked, address: str, scratch: Path) -> list[Child]:
    """Import all that a silo needs, training too, and return its processes."""
    code = _code()
    from clients.client_app import app
    from clients.executor import Bench, run_executor
    from clients.supernode import Node, run_supernode

    socket, secret = scratch / "node", os.urandom(SECRET_BYTES)
    node = Node(
        address=address,
        tls=partial(_silo_tls, kit, own),
        key=lambda: load_node_key((kit / NODE_KEY).read_bytes(), own.node_password),
        look=partial(_look, kit, own),
        recognise=partial(_recognise, kit),
        socket=socket,
        secret=secret,
    )
    bench = Bench(kit, code, app, socket, secret)
    return [
        Child("supernode", partial(run_supernode, node), kit / "logs" / "supernode.log"),
        Child("executor", partial(run_executor, bench), kit / "logs" / "executor.log", ("supernode",)),
    ]


def _silo_tls(kit: Path, own: Unlocked) -> ssl.SSLContext:
    """Return the context of a silo's connection. Sensitive."""
    return client_context(kit / CERTIFICATE, kit / TLS_KEY, own.tls_password, kit / AUTHORITY)


def _look(kit: Path, own: Unlocked, certificate: bytes, shown: bytes) -> None:
    """Look at a server's certificate and at the roster that it shows; take the roster, if it is newer than ours.

    Raises:
        FedmodelError: When this silo is no member any more, or not yet one for the server; or the server is not the
            federation's.
    """
    try:
        if accept_roster(kit, shown):
            logger.warning("took the roster that the server shows, which is newer than this kit's")
    except ProtocolError as error:
        logger.warning("%s", error)  # the server's is older; whether this silo is in it is seen below
    check_member(kit, own, read_federation_roster(kit))
    theirs = open_roster(shown, read_authority(kit), expired_too=True)
    try:
        member = theirs.member(own.name)
    except ConfigError as error:
        raise ConfigError(
            f"this silo is not registered: the server's roster, serial {theirs.serial}, does not have it; the server's"
            " administrator puts the newest roster into its kit"
        ) from error
    if member.node != read_federation_roster(kit).member(own.name).node:
        raise ConfigError(
            f"this silo's node is not registered: the server's roster, serial {theirs.serial}, has another key for it;"
            " the server's administrator puts the newest roster into its kit"
        )
    _recognise(kit, certificate)


def _recognise(kit: Path, certificate: bytes) -> None:
    """Refuse a server whose key is not the one that the roster has, whoever certified it.

    Raises:
        CryptoError: When it is another.
    """
    if tls_key_hash(ssl.DER_cert_to_PEM_cert(certificate).encode("ascii")) != _server_key(
        kit, (kit / ROSTER_FILE).stat().st_mtime_ns
    ):
        raise CryptoError(
            "the server's certificate is of another key than the roster has for the server: it was rotated, or it is"
            " not this federation's server; take the newest roster from the administrator"
        )


@lru_cache(maxsize=4)
def _server_key(kit: Path, _written: int) -> str:
    """Return the hash of the server's key as the roster has it; the roster is read again when it was written again."""
    return read_federation_roster(kit, expired_too=True).server.tls
