"""The command's options for what opens sealed keys (`fedmodel.crypto.openers`), and passphrases that are typed.

A passphrase that is typed is not shown; one that seals something new is typed twice.

Guarantee: before the first byte of a secret is read, this process's memory is kept out of core files and from other
processes of the account (`forbid_dumps`), or nothing is read.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedmodel.crypto.openers import ask_opener, private_text
from fedmodel.errors import ConfigError
from fedmodel.system.supervision import forbid_dumps

if TYPE_CHECKING:
    from scenarios.runs.inspection import LedgerFiles

LEAST_PASSPHRASE = 12

KeyFile = Annotated[Path | None, typer.Option("--key-file", help="The age key file that opens the keys.")]
PassphraseFile = Annotated[
    Path | None, typer.Option("--passphrase-file", help="A file (mode 0600) whose first line opens the keys.")
]


def typed(what: str) -> str:
    """Ask for a passphrase, without showing it."""
    forbid_dumps()
    return str(typer.prompt(f"Passphrase of {what}", hide_input=True, err=True))


def typed_twice(what: str) -> str:
    """Ask twice for a new passphrase, without showing it.

    Raises:
        ConfigError: When it is too short to withstand guesses.
    """
    forbid_dumps()
    said = typer.prompt(f"New passphrase of {what}", hide_input=True, confirmation_prompt=True, err=True)
    return long_enough(what, str(said))


def passphrases_of(path: Path) -> Callable[[str], str]:
    """Read new passphrases, one for each party, from a file in TOML: a line NAME = "..." for each, the authority's too.

    Raises:
        ConfigError: When it cannot be read, others could, it says no passphrase of a party that one is asked for, says
            one of two, or one that is too short.
    """
    try:
        said = tomllib.loads(private_text(path))
    except tomllib.TOMLDecodeError:
        # Its message would show a part of the file.
        raise ConfigError(f'{path}: is not TOML; a line is NAME = "passphrase"') from None
    if len(set(map(str, said.values()))) != len(said):
        raise ConfigError(f"{path}: two parties have one passphrase, so that each could open the other's kit")

    def of(name: str) -> str:
        found = said.get(name)
        if not isinstance(found, str):
            raise ConfigError(f'{path}: says no passphrase of {name!r}; add a line: {name} = "..."')
        return long_enough(name, found)

    return of


def long_enough(what: str, passphrase: str) -> str:
    """Refuse a new passphrase that is too short: whoever has the sealed file can try as many as they like."""
    if len(passphrase) < LEAST_PASSPHRASE:
        raise ConfigError(
            f"the passphrase of {what} has {len(passphrase)} characters, fewer than {LEAST_PASSPHRASE}; take five words"
            " that nobody put together before"
        )
    return passphrase


def unlocked(place: LedgerFiles, key_file: Path | None, passphrase_file: Path | None) -> LedgerFiles:
    """Return a place whose keys are open, asking for a passphrase where they are sealed and no file is given."""
    place.unlock(lambda: ask_opener(key_file, passphrase_file, lambda: typed(place.ledger.stem)))
    return place
