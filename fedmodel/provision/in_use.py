"""A party's kit in use on its machine: unlocked once, held by one process, and its children kept up.

    fedmodel server start   supervisor -> superlink     Flower's SuperLink; the one port that is opened
                                       -> coordinator   registers nodes, brings runs to their outcome
    fedmodel silo start     supervisor -> supernode     the connection to the server; no port is opened
                                       -> executor      answers messages, with the installed code

The supervisor imports everything and unlocks the kit once; its children are forks of it, and have both. Between them is
a Unix socket in a folder that is gone with them. What they print is in KIT/logs, the supervisor's notices too.
Which children a party has is for `server.party` and `clients.party` to say.

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
import signal
import stat
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, Final, NoReturn

from fedmodel.crypto.sealed import Opener
from fedmodel.errors import ConfigError, FedmodelError
from fedmodel.provision.identity import Unlocked
from fedmodel.provision.kits import expiring, is_sealed, unlock
from fedmodel.system.durable import naming
from fedmodel.system.inert import InertFormatter
from fedmodel.system.supervision import Child, Chore, Supervisor, forbid_dumps

logger = logging.getLogger(__name__)

LINK: Final = "link"
"""The socket of a server, in its folder."""
SECRET_BYTES: Final = 32
_INTERRUPTED: Final = 128 + signal.SIGINT
_LOCK: Final = "running.lock"
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_LONGEST_SOCKET: Final = 107  # sockaddr_un of Linux
_STARTING_S: Final = 1.0  # for a moment `running` holds the lock too, to see whether anybody does
_DAY_S: Final = 86400.0


def keep_up(children: Sequence[Child], kit: Path) -> int:
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
def refusals_kept(kit: Path) -> Iterator[None]:
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
def in_use(kit: Path, opener: Opener) -> Iterator[tuple[Unlocked, Path]]:
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
    if len(os.fsencode(within / "fm-12345678" / LINK)) > _LONGEST_SOCKET:
        which = "RuntimeDirectory of the unit" if own else "TMPDIR"
        raise ConfigError(f"{within}: a Unix socket in it would have too long a path; set {which} to a shorter one")
    return Path(tempfile.mkdtemp(prefix="fm-", dir=within))


def leave(number: int) -> NoReturn:
    """End this process after a party was told to end by a signal."""
    interrupted = number == signal.SIGINT
    if interrupted:
        sys.stderr.write("interrupted\n")
    # All is ended and cleared up; taking torch apart besides would keep whoever waits for seconds.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(_INTERRUPTED if interrupted else 0)


def running(kit: Path) -> Path | None:
    """Return the socket of the server that runs from a kit on this machine, None where none does."""
    try:
        with (kit / _LOCK).open("rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return Path(lock.read().decode()) / LINK
    except FileNotFoundError:
        pass
    return None
