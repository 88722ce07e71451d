"""A deployed party on its machine: its kit is unlocked, its processes are started and kept up.

    fedmodel server start   supervisor -> superlink     Flower's SuperLink; the one port that is opened
                                       -> coordinator   registers nodes, brings runs to their outcome
    fedmodel silo start     supervisor -> supernode     the connection to the server; no port is opened
                                       -> executor      answers messages, with the installed code

The supervisor imports everything and unlocks the kit once; its children are forks of it, and have both. Between them is
a Unix socket in a folder that is gone with them. What they print is in KIT/logs, the supervisor's notices too.

Guarantee: one party runs once on a machine from one kit; memory with keys goes into no core dump, and no other process
of the same account can read it.

NOT protected: a party from its own account. Whatever runs under it can still read the key file, where that belongs to
the account, and unlock the kit as this does; hand in runs; ask the server's socket for all that it serves;
and end, or change, what runs here. So the account is the party's alone, and the key file a credential of systemd's.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import socket
import ssl
import stat
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import IO, Final

from fedmodel.crypto.certificates import load_node_key
from fedmodel.crypto.renewing import tls_key_hash
from fedmodel.crypto.sealed import Opener
from fedmodel.crypto.transport import client_context, server_context
from fedmodel.errors import ConfigError, CryptoError, FedmodelError, ProtocolError
from fedmodel.provision import (
    Unlocked,
    accept_revocations,
    accept_roster,
    expiring,
    is_sealed,
    open_roster,
    read_authority,
    read_federation_roster,
    read_kit,
    read_revocations,
    read_server_law,
    unlock,
)
from fedmodel.provision.kits import AUTHORITY, CERTIFICATE, NODE_KEY, REVOKED, ROSTER_FILE, TLS_KEY, check_member
from fedmodel.system.durable import naming
from fedmodel.system.inert import InertFormatter
from fedmodel.system.packages import code_hash
from fedmodel.system.supervision import Child, Chore, Supervisor, forbid_dumps

logger = logging.getLogger(__name__)

_LOCK: Final = "running.lock"
_LINK: Final = "link"
_SECRET_BYTES: Final = 32
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_LONGEST_SOCKET: Final = 107  # sockaddr_un of Linux
_STARTING_S: Final = 1.0  # for a moment `running` holds the lock too, to see whether anybody does
_DAY_S: Final = 86400.0


def serve(kit: Path, opener: Opener) -> int:
    """Keep a server up until it is told to end; return the number of the signal that told it.

    Raises:
        FedmodelError: When its kit is not a server's, not whole, or runs already.
    """
    kit = kit.resolve()
    with _refusals_kept(kit), _in_use(kit, opener) as (own, scratch):
        if own.name != "server":
            raise ConfigError(f"{kit}: is the kit of silo {own.name!r}; start it with `fedmodel silo start`")
        law = read_server_law(kit)
        _server_tls(kit, own)  # what is wrong with it is said here, and not again and again in a log
        check_listen(law.listen)
        children = _server_children(kit, own, law.listen, law.device, scratch)
        return _keep_up(children, kit)


def check_listen(address: str) -> None:
    """Refuse an address that the server could not listen on.

    Raises:
        ConfigError: When another program has it, or this machine does not.
    """
    from clients.connecting import split_address

    host, port = split_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        raise ConfigError(
            f"server.toml: listen = {address!r} cannot be listened on: {error.strerror}; stop what has the port, or"
            " name an address of this machine"
        ) from error


def take_part(kit: Path, opener: Opener) -> int:
    """Keep a silo up until it is told to end; return the number of the signal that told it.

    Raises:
        FedmodelError: When its kit is not a silo's, not whole, or runs already, or the server will never take it.
    """
    from fedmodel.data import check_sources

    kit = kit.resolve()
    with _refusals_kept(kit), _in_use(kit, opener) as (own, scratch):
        if own.name == "server":
            raise ConfigError(f"{kit}: is the server's kit; start it with `fedmodel server start`")
        law = read_kit(kit).law
        check_sources(law, kit)
        if law.connection is None:
            raise ConfigError(f"{kit / 'silo.toml'}: names no server; add [connection] with its address")
        _silo_tls(kit, own)
        children = _silo_children(kit, own, law.connection.address, scratch)
        return _keep_up(children, kit)


def _server_children(kit: Path, own: Unlocked, listen: str, device: str, scratch: Path) -> list[Child]:
    """Import all that a server needs, and return its processes."""
    from clients.connecting import split_address
    from server.coordinator import Desk, run_coordinator
    from server.server_app import app
    from server.superlink import Link, run_superlink

    host, port = split_address(listen)
    socket, secret = scratch / _LINK, os.urandom(_SECRET_BYTES)
    watched = tuple(kit / name for name in (ROSTER_FILE, REVOKED, CERTIFICATE))
    link = Link(host, port, partial(_server_tls, kit, own), kit / ROSTER_FILE, watched, socket, secret)
    desk = Desk(kit, partial(_nodes, kit), app, device, socket, secret)
    return [
        Child("superlink", partial(run_superlink, link), kit / "logs" / "superlink.log", ("coordinator",)),
        Child("coordinator", partial(run_coordinator, desk), kit / "logs" / "coordinator.log"),
    ]


def _silo_children(kit: Path, own: Unlocked, address: str, scratch: Path) -> list[Child]:
    """Import all that a silo needs, training too, and return its processes."""
    import clients.hiding
    import clients.training  # noqa: F401 - so that the first message that trains is no slower
    from clients.client_app import app
    from clients.executor import Bench, run_executor
    from clients.supernode import Node, run_supernode

    socket, secret = scratch / "node", os.urandom(_SECRET_BYTES)
    node = Node(
        address=address,
        tls=partial(_silo_tls, kit, own),
        key=lambda: load_node_key((kit / NODE_KEY).read_bytes(), own.node_password),
        look=partial(_look, kit, own),
        recognise=partial(_recognise, kit),
        socket=socket,
        secret=secret,
    )
    bench = Bench(kit, code_hash(), app, socket, secret)
    return [
        Child("supernode", partial(run_supernode, node), kit / "logs" / "supernode.log"),
        Child("executor", partial(run_executor, bench), kit / "logs" / "executor.log", ("supernode",)),
    ]


def _keep_up(children: Sequence[Child], kit: Path) -> int:
    """Watch the children; what there is to say about them goes to standard error and to the kit's log, a line each."""
    log = _kit_log(kit)
    handlers = (log, logging.StreamHandler(sys.stderr))
    for handler in handlers:
        handler.setFormatter(InertFormatter("%(asctime)s %(message)s"))
    # In place of what the command has for short answers, which breaks lines at 80 columns.
    logging.basicConfig(level=logging.WARNING, handlers=handlers, force=True)
    try:
        return Supervisor(children, Chore(partial(_tell_expiring, kit), _DAY_S)).run()
    finally:
        logging.getLogger().removeHandler(log)
        log.close()


@contextmanager
def _refusals_kept(kit: Path) -> Iterator[None]:
    """Write why a kit was not started, or ended for good, into its own log as well: nobody may have seen it said."""
    os.umask(0o077)
    try:
        yield
    except FedmodelError as error:
        if is_sealed(kit):
            with suppress(OSError, FedmodelError), closing(_kit_log(kit)) as log:
                log.setFormatter(InertFormatter("%(asctime)s %(message)s"))
                log.handle(logger.makeRecord(logger.name, logging.ERROR, __file__, 0, "%s", (error,), None))
        raise


class _KitLog(logging.FileHandler):
    """A log that follows no link, and is its owner's alone."""

    def _open(self) -> IO[str]:  # type: ignore[override]
        def opener(path: str, flags: int) -> int:
            return os.open(path, flags | os.O_NOFOLLOW, 0o600)

        return open(self.baseFilename, self.mode, encoding=self.encoding, opener=opener)


def _kit_log(kit: Path) -> logging.FileHandler:
    """Open the log of a kit's supervisor.

    Raises:
        ConfigError: When others could put there what they like, a link to any file of this account's too.
    """
    path = kit / "logs" / "supervisor.log"
    _check_writer(kit)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    _check_writer(path.parent)
    try:
        return _KitLog(path, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written, or is a link: {error.strerror}; move it away") from error


def _check_writer(folder: Path) -> None:
    """Refuse a folder that another account can write to."""
    found = folder.stat()
    if found.st_uid != os.geteuid() or found.st_mode & _OTHERS_WRITE:
        raise ConfigError(f"{folder}: others can write to it, so no log is kept there")


def _tell_expiring(kit: Path) -> None:
    """Say what of a kit ends soon."""
    try:
        lines = expiring(kit)
    except (FedmodelError, OSError) as error:
        lines = [f"{kit}: what expires cannot be seen: {error}"]
    for line in lines:
        logger.warning("%s", line)


@contextmanager
def _in_use(kit: Path, opener: Opener) -> Iterator[tuple[Unlocked, Path]]:
    """Unlock a kit and hold it for this process and its children; yield its keys and a short-lived folder."""
    forbid_dumps()
    own = unlock(kit, opener)
    with (kit / _LOCK).open("ab", buffering=0) as lock:
        _lock(kit, lock)
        scratch = _scratch()
        try:
            with naming(kit / _LOCK):
                lock.truncate(0)
                lock.write(str(scratch).encode())  # for whoever asks how it does, under the same account
            os.environ["FLWR_HOME"] = str(scratch / "flower")
            yield own, scratch
        finally:
            with suppress(OSError):
                shutil.rmtree(scratch)


def _lock(kit: Path, lock: IO[bytes]) -> None:
    """Take the lock of a kit, for which no other start waits.

    Raises:
        ConfigError: When the kit runs.
    """
    deadline = time.monotonic() + _STARTING_S
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if time.monotonic() >= deadline:
                raise ConfigError(f"{kit}: runs already on this machine; stop that first") from error
        time.sleep(0.02)


def _scratch() -> Path:
    """Make the folder of the socket: in the service's own of systemd, which other processes see, or a temporary one.

    Raises:
        ConfigError: When a socket in it would have too long a path.
    """
    # systemd puts a colon between several.
    own = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    within = Path(own or tempfile.gettempdir())
    if len(os.fsencode(within / "fm-12345678" / _LINK)) > _LONGEST_SOCKET:
        which = "RuntimeDirectory of the unit" if own else "TMPDIR"
        raise ConfigError(f"{within}: a Unix socket in it would have too long a path; set {which} to a shorter one")
    return Path(tempfile.mkdtemp(prefix="fm-", dir=within))


def running(kit: Path) -> Path | None:
    """Return the socket of the server that runs from a kit on this machine, None where none does."""
    try:
        with (kit / _LOCK).open("rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return Path(lock.read().decode()) / _LINK
    except FileNotFoundError:
        pass
    return None


def _server_tls(kit: Path, own: Unlocked) -> ssl.SSLContext:
    """Return the context of the fleet's port. Sensitive."""
    revoked = read_revocations(kit)
    context = server_context(kit / CERTIFICATE, kit / TLS_KEY, own.tls_password, kit / AUTHORITY, revoked)
    accept_revocations(kit, revoked)
    return context


def _silo_tls(kit: Path, own: Unlocked) -> ssl.SSLContext:
    """Return the context of a silo's connection. Sensitive."""
    return client_context(kit / CERTIFICATE, kit / TLS_KEY, own.tls_password, kit / AUTHORITY)


def _nodes(kit: Path) -> dict[str, str]:
    """Return the public keys of the silos' nodes by silo."""
    return {silo.name: silo.node for silo in read_federation_roster(kit).silos if silo.node is not None}


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
