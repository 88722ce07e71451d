"""A silo's program: `python -P -m clients.start KIT`, into which `fedmodel silo start KIT` turns its own process.

It is the root of a silo's code. All of this project that the silo's processes import is reached from here
(`fedmodel.system.reach`), and it is that which the hash in a silo's law is of (`fedmodel.system.packages`).

What has run before the first line of this, and is in no hash:

| What                                           | What it can see and do                                              |
|------------------------------------------------|---------------------------------------------------------------------|
| Python's start, with what its installation     | all that this program can: it stays in the process                  |
| runs then (`sitecustomize`, `.pth` files)      |                                                                     |
| `fedmodel silo start`, where that was given    | the paths of kit, key file and passphrase file. It opens none, and  |
|                                                | is gone from the process. It names the program that it turns into   |

Whoever can change either runs under the silo's account or over it, against which nothing here protects
(`fedmodel.provision.in_use`). A service may start this program itself, by the line above, without `fedmodel`.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from getpass import getpass
from pathlib import Path
from typing import Final, NoReturn

from fedmodel.errors import ConfigError, FedmodelError
from fedmodel.system import environment
from fedmodel.system.durable import failed
from fedmodel.system.inert import InertFormatter, inert, show_crash

_PASSPHRASE: Final = "Passphrase of the silo's kit: "  # noqa: S105 - how it is asked for


def command(kit: Path, key_file: Path | None, passphrase_file: Path | None) -> list[str]:
    """Return the words that start this program with this very Python, the current folder not in its path."""
    flags = [flag for flag, on in (("-E", sys.flags.ignore_environment), ("-s", sys.flags.no_user_site)) if on]
    given = (("--key-file", key_file), ("--passphrase-file", passphrase_file))
    options = [f"{name}={path}" for name, path in given if path is not None]
    return [sys.executable, *flags, "-P", "-m", "clients.start", *options, "--", str(kit)]


def main() -> NoReturn:
    """Take part with a silo until interrupted; a refusal is one line on standard error, and an exit status."""
    sys.excepthook = show_crash
    logging.raiseExceptions = False  # a log that cannot be written is no traceback on a person's terminal
    try:
        check_alone(os.environ)
        environment.settle()
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(InertFormatter("%(message)s"))
        logging.basicConfig(level=logging.WARNING, handlers=[handler])
        run(sys.argv[1:])
    except FedmodelError as error:
        _end(str(error), error.exit_status)
    except OSError as error:
        _end(failed(error), 1)
    except (KeyboardInterrupt, EOFError):  # at the question for a passphrase
        sys.stderr.write("interrupted\n")
        sys.exit(130)


def check_alone(variables: Mapping[str, str]) -> None:
    """Refuse to be one of several that torchrun starts: a silo is one process with one ledger, and starts its others.

    Args:
        variables: Of the environment.

    Raises:
        ConfigError: What to do instead.
    """
    told = [name for name in ("TORCHELASTIC_RUN_ID", "LOCAL_RANK") if name in variables]
    if told:
        raise ConfigError(
            f"this silo was started by torchrun, which set {told[0]}: it would begin once for each process, on one"
            " ledger; start it without torchrun, and say processes = N in silo.toml"
        )


def run(words: Sequence[str]) -> NoReturn:
    """Open the keys, take part, and end the process as its end asks for.

    Raises:
        FedmodelError: When the kit is refused, or the server will never take it.
    """
    # Imported once the environment is settled: Flower reads variables, and so do other libraries.
    from clients.party import take_part
    from fedmodel.crypto.openers import ask_opener
    from fedmodel.provision.in_use import leave

    given = _words().parse_args(words)
    leave(take_part(given.kit, ask_opener(given.key_file, given.passphrase_file, _ask)))


def _words() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="clients.start", description="Take part with a silo until interrupted.")
    parser.add_argument("kit", type=Path, help="The silo's kit, a folder of its own.")
    parser.add_argument("--key-file", type=Path, help="The age key file that opens the keys.")
    parser.add_argument("--passphrase-file", type=Path, help="A file (mode 0600) whose first line opens the keys.")
    return parser


def _ask() -> str:
    """Ask for the passphrase, without showing it. Sensitive."""
    return getpass(_PASSPHRASE, stream=sys.stderr)


def _end(reason: str, status: int) -> NoReturn:
    """Say why the program ends, in one line, and end it."""
    sys.stderr.write(f"error: {inert(reason)}\n")
    sys.exit(status)


if __name__ == "__main__":
    main()
