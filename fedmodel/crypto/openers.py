"""How a program is told what opens sealed keys: a key file, a file with a passphrase, or whatever it asks a person.

A passphrase is never an argument of a command, where every user of the machine would see it, nor a variable of the
environment, which children get.

Guarantee: before the first byte of a secret is read, this process's memory is kept out of core files and from other
processes of the account (`forbid_dumps`), or nothing is read.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from fedmodel.crypto.sealed import Opener, check_private_file, opener_from_key_file, opener_from_passphrase
from fedmodel.errors import ConfigError
from fedmodel.system.supervision import forbid_dumps

_MOST_CHARACTERS: Final = 65_536


def ask_opener(key_file: Path | None, passphrase_file: Path | None, prompt: Callable[[], str]) -> Opener:
    """Return what opens sealed keys; the prompt is asked where neither file is given.

    Raises:
        ConfigError: When both are given, or one cannot be read or can be by others.
    """
    forbid_dumps()
    if key_file is not None and passphrase_file is not None:
        raise ConfigError("--key-file and --passphrase-file are two ways to open one thing; give one")
    if key_file is not None:
        return opener_from_key_file(key_file)
    return opener_from_passphrase(prompt() if passphrase_file is None else first_line(passphrase_file))


def first_line(path: Path) -> str:
    """Return the first line of a file that its owner alone can read. Sensitive.

    Raises:
        ConfigError: When it cannot be read, or others could.
    """
    lines = private_text(path).splitlines()
    if not lines or not lines[0]:
        raise ConfigError(f"{path}: its first line is a passphrase, and is empty")
    return lines[0]


def private_text(path: Path) -> str:
    """Return the text of a file that its owner alone can read. Sensitive.

    Raises:
        ConfigError: When it cannot be read, or others could.
    """
    forbid_dumps()
    try:
        with path.open(encoding="utf-8") as file:
            check_private_file(path, os.fstat(file.fileno()))
            return file.read(_MOST_CHARACTERS)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not text in UTF-8") from None
