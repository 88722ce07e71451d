"""Shares of a round, whatever becomes of who has them: each silo is trained for by one answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from fedmodel.errors import FedmodelError, ProtocolError
from scenarios.simulation.sharing import MOST_LOSSES, Sharing
from scenarios.simulation.trainers import Trained

SHARES = [["a", "b"], ["c"], ["d", "e", "f"]]
SILOS = [silo for share in SHARES for silo in share]


def trained(silos: Sequence[str], value: float = 1.0) -> Trained:
    """Return what a worker brings that was asked for silos."""
    return Trained({silo: np.full(2, value, dtype=np.float32) for silo in silos})


@pytest.mark.parametrize("seed", range(20))
def test_each_silo_has_the_update_of_who_had_it_last_however_workers_are_lost(seed: int) -> None:
    """Every answer is another number, so that one of a lost worker would be seen."""
    chance, sharing = np.random.default_rng(seed), Sharing(SHARES)
    has: dict[int, tuple[str, ...]] = {}
    drawn: dict[str, list[float]] = {silo: [] for silo in SILOS}
    expected: dict[str, float] = {}
    worker, lost = 0, 0
    while sharing.open or has:
        if sharing.open and (not has or chance.random() < 0.5):
            worker += 1
            has[worker] = sharing.give(worker)
            continue
        one = int(chance.choice(sorted(has)))
        silos, value = has.pop(one), chance.random()
        for silo in silos:
            drawn[silo].append(value)
        if lost < MOST_LOSSES - 1 and chance.random() < 0.5:
            lost += 1
            sharing.lose(one)
            with pytest.raises(ProtocolError, match="struck off before"):  # it was only cut off, and answers now
                sharing.take(one, trained(silos, value))
        else:
            sharing.take(one, trained(silos, value))
            expected |= dict.fromkeys(silos, np.float32(value))
    found = sharing.whole(SILOS)
    assert {silo: update[0] for silo, update in found.updates.items()} == expected
    assert list(found.updates) == SILOS
    assert sum(len(values) - 1 for values in drawn.values()) >= lost  # what was computed twice left once


def test_an_answer_is_of_who_has_the_share_once_and_of_its_silos_alone() -> None:
    sharing = Sharing(SHARES)
    silos = sharing.give(1)
    for others in (["a"], ["a", "c"], ["a", "b", "c"], []):
        with pytest.raises(ProtocolError, match="of other silos than it was asked for"):
            sharing.take(1, trained(others))
    with pytest.raises(ProtocolError, match="is given none"):
        sharing.give(1)
    with pytest.raises(ProtocolError, match="was not asked for"):
        sharing.take(2, trained(silos))
    sharing.take(1, Trained({"a": np.zeros(2, dtype=np.float32)}, {"b": "internal"}))
    with pytest.raises(ProtocolError, match="was not asked for"):
        sharing.take(1, trained(silos))
    assert dict(sharing.whole(["b", "a"]).failed) == {"b": "internal"}


def test_a_lost_worker_is_given_nothing_and_what_it_had_comes_first() -> None:
    sharing = Sharing(SHARES)
    first = sharing.give(1)
    sharing.give(2)
    sharing.lose(1)
    sharing.lose(3)  # which had nothing
    for lost in (1, 3):
        with pytest.raises(ProtocolError, match="is lost"):
            sharing.give(lost)
    assert sharing.give(4) == first


def test_silos_with_which_workers_are_lost_again_and_again_are_given_to_no_other() -> None:
    sharing = Sharing(SHARES[:1])
    for worker in range(1, MOST_LOSSES):
        sharing.give(worker)
        sharing.lose(worker)
    sharing.give(MOST_LOSSES)
    with pytest.raises(FedmodelError, match=rf"^{MOST_LOSSES} workers were lost .* the run goes on from its last"):
        sharing.lose(MOST_LOSSES)
    assert not sharing.open
