"""A table's section of `silo.toml`, changed in the text of the file, so that a person's comments and order stay.

Guarantee: the new text says what the old one says, and in `[tables.NAME]` the given keys besides: it is read again and
compared before it is written. Where that cannot be had, as in a file that writes its tables in one line, nothing is
written, and the section is said so that a person can enter it.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from fedmodel.errors import ConfigError
from fedmodel.provision.kits import LAW
from fedmodel.system.durable import replace_file

_HEADER: Final = re.compile(r"\s*\[\s*tables\s*\.\s*(?P<name>[^\]]+?)\s*\]\s*(#.*)?")


def section(name: str, keys: Mapping[str, Any]) -> str:
    """Return a section with some keys, for a person to enter.

    >>> print(section("tables.ward", {"decimal": ",", "yes": ["ja"]}), end="")
    [tables.ward]
    decimal = ","
    yes = ["ja"]
    """
    return "\n".join([f"[{name}]", *_lines(keys), ""])


def _lines(keys: Mapping[str, Any]) -> list[str]:
    """Return a line of TOML for each key; what JSON writes of text and lists of it is TOML."""
    return [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in keys.items()]


def add_keys(kit: Path, name: str, keys: Mapping[str, Any]) -> Path:
    """Set some keys of `[tables.NAME]` in a kit's `silo.toml`, and return its path.

    Raises:
        ConfigError: When the file cannot be read or written, or is written so that a person has to enter them.
    """
    path = kit / LAW
    try:
        text = path.read_bytes().decode("utf-8-sig")
        changed = with_keys(text, name, keys)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path}: the keys could not be entered ({error}); enter them by hand: {json.dumps(dict(keys))}"
        ) from None
    replace_file(path, changed.encode())
    return path


def with_keys(text: str, name: str, keys: Mapping[str, Any]) -> str:
    r"""Return a file's text with some keys of `[tables.NAME]` set.

    Raises:
        ValueError: When the section is not there as lines of its own, or another thing would be said besides.

    >>> text = '[tables.ward]  # ours\ncsv = "a.csv"\nyes = ["y"]\n[budgets]\n'
    >>> print(with_keys(text, "ward", {"yes": ["ja"]}), end="")
    [tables.ward]  # ours
    yes = ["ja"]
    csv = "a.csv"
    [budgets]
    """
    lines = text.splitlines(keepends=True)
    starts = [
        at
        for at, line in enumerate(lines)
        if (found := _HEADER.fullmatch(line.rstrip("\r\n"))) and found["name"].strip("\"'") == name
    ]
    if len(starts) != 1:
        raise ValueError(f"there is no line [tables.{name}] in it, or there are several")
    end = "\r\n" if lines[starts[0]].endswith("\r\n") else "\n"
    after = starts[0] + 1
    stop = next((at for at in range(after, len(lines)) if re.match(r"\s*\[", lines[at])), len(lines))
    old = re.compile(rf"\s*[\"']?({'|'.join(map(re.escape, keys))})[\"']?\s*=")
    kept = [line for line in lines[after:stop] if not old.match(line)]
    said = [f"{line}{end}" for line in _lines(keys)]
    head = lines[starts[0]] if lines[starts[0]].endswith("\n") else lines[starts[0]] + end
    changed = "".join([*lines[: starts[0]], head, *said, *kept, *lines[stop:]])
    wanted = tomllib.loads(text)
    wanted["tables"][name] |= json.loads(json.dumps(dict(keys)))
    if tomllib.loads(changed) != wanted:
        raise ValueError("it is written in a way in which a program would change something else besides")
    return changed
