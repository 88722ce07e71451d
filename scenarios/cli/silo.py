"""The verbs of a deployed party: `server start` and `silo start`. Thin: `scenarios.deployment.party` does the work."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from fedmodel.crypto.sealed import Opener
from scenarios.cli.ledger import silo_app
from scenarios.cli.printing import INTERRUPTED, err
from scenarios.cli.unlocking import KeyFile, PassphraseFile, ask_opener, typed

server_group = typer.Typer(help="The federation's server.", no_args_is_help=True)

Kit = Annotated[Path, typer.Argument(help="The party's kit, a folder of its own.")]


@server_group.command("start")
def server_start(kit: Kit, key_file: KeyFile = None, passphrase_file: PassphraseFile = None) -> None:
    """Serve a federation until interrupted; exit status 2 when the kit is refused."""
    from scenarios.deployment.party import serve

    _run(serve, kit, key_file, passphrase_file, "the server's kit")


@silo_app.command("start")
def silo_start(kit: Kit, key_file: KeyFile = None, passphrase_file: PassphraseFile = None) -> None:
    """Take part with a silo until interrupted; exit status 2 when kit or server refuses, for good."""
    from scenarios.deployment.party import take_part

    _run(take_part, kit, key_file, passphrase_file, "the silo's kit")


def _run(
    start: Callable[[Path, Opener], int], kit: Path, key_file: Path | None, passphrase_file: Path | None, what: str
) -> None:
    """Start a party, and end as its end asks for."""
    opener = ask_opener(key_file, passphrase_file, lambda: typed(what))
    interrupted = start(kit, opener) == signal.SIGINT
    if interrupted:
        err.print("interrupted")
    # All is ended and cleared up; taking torch apart besides would keep whoever waits for seconds.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(INTERRUPTED if interrupted else 0)
