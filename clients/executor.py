"""The silo's process that answers messages: warm, and with the installed code alone.

Flower would unpack the bundle that a run brings, import it and start a process for every message. Here the packages
that are installed at the silo answer, in one process that imported them once. What came is hashed in memory, only to
refuse a run whose author has other code of a silo: who would have to believe in figures that another program made.

Guarantee: nothing of a bundle is imported, parsed, or written to a disk by this process. Flower's node, which hands it
over, reads its `pyproject.toml`, and keeps it in memory.

When the SuperNode is gone in the middle of a task this process ends; its supervisor starts both again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
from flwr.app import Context, Error, Message

from fedmodel import wire
from fedmodel.errors import ConfigError, FedmodelError, PolicyRefused
from fedmodel.provision import read_law
from fedmodel.system.packages import bundle_hash
from fedmodel.system.supervision import Facts
from fedmodel.wire.runtime import SocketRuntime, answer_one, log_plainly

logger = logging.getLogger(__name__)

_POLL_S: Final = 0.03
_MOST_REMEMBERED: Final = 100

App = Callable[[Message, Context], Message]


@dataclass(frozen=True)
class Bench:
    """What an executor is started with.

    Attributes:
        home: The silo's kit, unlocked.
        code: The hash of a silo's code, taken when it was imported (`clients.policy.own_code`).
        app: The installed app.
        socket: The SuperNode's.
        secret: What whoever runs tasks shares with it. Sensitive.
    """

    home: Path
    code: str
    app: App
    socket: Path
    secret: bytes


def run_executor(bench: Bench, _facts: Facts) -> None:
    """Answer messages until the process is ended.

    Raises:
        httpx.HTTPError: When the SuperNode is gone in the middle of a task.
    """
    log_plainly()
    prepare_processes(bench.home)
    answerer = Answerer(bench)
    with SocketRuntime(bench.socket, "flwr-clientapp", bench.secret) as client:
        while True:
            try:
                answered = answer_one(client, answerer)
            except httpx.ConnectError:  # the SuperNode is not up, or not yet
                answered = False
            if not answered:
                time.sleep(_POLL_S)


def prepare_processes(kit: Path) -> None:
    """Make several processes possible where the silo's law says that it trains in several.

    It has to come before torch has computed anything in this process. `training.threads = "auto"` is each one's part of
    the cores then, unless `OMP_NUM_THREADS` is said already. A law that cannot be read is refused where a message asks
    for it, by a code that the server is told, and not by an executor that ends again and again.
    """
    try:
        processes = read_law(kit).processes
    except FedmodelError:
        return
    if processes > 1:
        from fedmodel.learning.devices import cores
        from fedmodel.learning.jobs._rank import work
        from fedmodel.learning.ranks import prepare

        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // processes)))
        prepare(work)


class Answerer:
    """Answers a message with the installed app, if it came with the installed code."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._refused: dict[bytes, str | None] = {}

    def __call__(self, message: Message, context: Context, bundle: bytes) -> Message | Error:
        """Return the app's answer, or a refusal; nothing is raised, since nothing of it may leave."""
        try:
            if reason := self._why_refused(bundle):
                logger.error("run %s is refused: %s", context.run_id, reason)
                return wire.refusal(PolicyRefused.code)
            context.node_config = {"home": str(self._bench.home)}  # whatever else Flower was told
            return self._bench.app(message, context)
        except Exception as error:
            logger.exception("a message of kind %.40r was not answered", message.metadata.message_type)
            return wire.refusal(error.code if isinstance(error, FedmodelError) else FedmodelError.code)

    def _why_refused(self, bundle: bytes) -> str | None:
        """Return why a bundle is refused, None where it is not; each is looked at once."""
        key = hashlib.sha256(bundle).digest()
        if key not in self._refused:
            if len(self._refused) >= _MOST_REMEMBERED:
                self._refused.clear()
            self._refused[key] = self._compare(bundle)
        return self._refused[key]

    def _compare(self, bundle: bytes) -> str | None:
        try:
            found = bundle_hash(bundle)
        except ConfigError as error:
            return str(error)
        if found == self._bench.code:
            return None
        return (
            f"its code is {found}, and this silo's is {self._bench.code}; install the version that the server"
            " runs, or have the server install this one"
        )
