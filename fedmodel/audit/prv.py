"""Opacus's PRV accountant, its own code, without the rest of Opacus, which it does not compute with.

`import opacus.accountants` imports all of Opacus, whose optimisers import torch's code for many machines and a system
of algebra: over a CPU second, for a figure of milliseconds. An accountant needs none of it but the type of an argument
that nobody gives here. So the files that compute are imported by themselves, as they were installed, under a name of
our own: `opacus.accountants.prv`, and what it imports of its own folder. What `opacus` is to others stays what it is.

In place of the one file that asks for Opacus's optimisers (`accountant.py`) stands the class that it would define, with
the list of charges and nothing else, which is all that PRV and RDP use of it.

Guarantee: figures are, to the bit, those of `opacus.accountants.PRVAccountant`.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Final

_NAME: Final = "_opacus_accountants"


class _IAccountant:
    """What every accountant of Opacus's begins as."""

    def __init__(self) -> None:
        self.history: list[tuple[float, float, int]] = []


def prv_accountant() -> Any:  # Opacus has no types
    """Return a new PRV accountant of Opacus's; its `history` is a list of (noise multiplier, rate, steps)."""
    return _class_of_opacus()()


@cache
def _class_of_opacus() -> Any:
    """Import the accountant, once a process."""
    found = find_spec("opacus")  # which imports nothing
    if found is None or found.origin is None:
        raise ModuleNotFoundError("opacus is not installed", name="opacus")
    folder, base = ModuleType(_NAME), ModuleType(f"{_NAME}.accountant")
    folder.__path__ = [str(Path(found.origin).parent / "accountants")]
    base.IAccountant = _IAccountant  # type: ignore[attr-defined]
    sys.modules[_NAME], sys.modules[base.__name__] = folder, base
    return import_module(f"{_NAME}.prv").PRVAccountant
