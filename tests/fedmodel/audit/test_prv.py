"""Opacus's accountant by itself gives Opacus's figures, and imports nothing of what it does not use."""

from __future__ import annotations

import subprocess
import sys

import pytest
from opacus.accountants import PRVAccountant

from fedmodel.audit.prv import prv_accountant

HISTORIES = [
    [(2.0, 0.5, 24)],
    [(1.0, 0.01, 1000)],
    [(3.0, 0.2, 10), (1.5, 0.1, 7)],
]


@pytest.mark.parametrize("history", HISTORIES)
def test_its_figures_are_opacuss_to_the_bit(history: list[tuple[float, float, int]]) -> None:
    alone, whole = prv_accountant(), PRVAccountant()
    alone.history, whole.history = list(history), list(history)
    assert alone.get_epsilon(1e-5, eps_error=0.01) == whole.get_epsilon(1e-5, eps_error=0.01)
    assert type(alone) is not PRVAccountant  # else nothing is compared


def test_each_begins_with_nothing_charged() -> None:
    prv_accountant().history.append((1.0, 1.0, 1))
    assert prv_accountant().history == []


def test_nothing_of_opacus_beside_it_is_imported_nor_put_in_its_place() -> None:
    words = (
        "import sys; from fedmodel.audit.prv import prv_accountant; prv_accountant();"
        " print(*(name for name in ('opacus', 'sympy', 'torch.distributed.tensor') if name in sys.modules));"
        " from opacus.accountants import IAccountant; print(IAccountant.__module__)"
    )
    found = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert found.stdout == "\nopacus.accountants.accountant\n"
