"""A deployed party's process: `server start` and `silo start` until they are interrupted."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from fedmodel.crypto.sealed import Opener
from scenarios.cli.printing import INTERRUPTED, err
from scenarios.cli.unlocking import ask_opener, typed


def run_party(
    start: Callable[[Path, Opener], int], kit: Path, key_file: Path | None, passphrase_file: Path | None, what: str
) -> None:
    """Start a party with its keys open, wait for its end, and end the process as that asks for."""
    opener = ask_opener(key_file, passphrase_file, lambda: typed(what))
    interrupted = start(kit, opener) == signal.SIGINT
    if interrupted:
        err.print("interrupted")
    # All is ended and cleared up; taking torch apart besides would keep whoever waits for seconds.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(INTERRUPTED if interrupted else 0)
