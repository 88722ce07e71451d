"""The collector of garbage rests while modules are imported, and is itself again afterwards."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from scenarios.cli.loading import loading


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    yield
    gc.unfreeze()
    gc.enable()


@pytest.mark.parametrize("was_on", [True, False])
def test_nothing_is_collected_meanwhile_and_all_is_afterwards(was_on: bool) -> None:
    if not was_on:
        gc.disable()
    with loading():
        assert not gc.isenabled()
    assert gc.isenabled() is was_on


def test_what_was_there_is_not_gone_over_again() -> None:
    before = gc.get_freeze_count()
    with loading():
        made: list[object] = [[] for _ in range(100)]
    assert gc.get_freeze_count() >= before + len(made)


def test_the_collector_is_on_again_where_an_import_fails() -> None:
    with pytest.raises(ModuleNotFoundError), loading():
        raise ModuleNotFoundError
    assert gc.isenabled()
