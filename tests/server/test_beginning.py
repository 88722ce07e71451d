"""Which silos a run may begin with: those of which a round can come to a sum."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedmodel.config import Scenario, read_scenario
from fedmodel.crypto import SigningKey
from fedmodel.errors import DropoutError
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent
from fedmodel.provision import least_silos
from fedmodel.secagg import Member as Entered
from fedmodel.secagg import Roster
from server.beginning import check_can_begin
from server.joining import NOTHING_RESERVED, Joined, JoinedSilo

MASKED = ["encryption.secure_aggregation=on", "encryption.bound=9.0", "encryption.colluding=0"]
SUMMED = ["encryption.secure_aggregation=simulated", "encryption.bound=9.0", "encryption.colluding=0"]
ROLLED = "encryption.consistency=quorum"


def of(tiny_file: Path, silos: int, *settings: str) -> Scenario:
    names = ",".join(f'"s{number}"' for number in range(1, silos + 1))
    return read_scenario(str(tiny_file), [f"federation.silos=[{names}]", *settings])


def begin(scenario: Scenario, found: int) -> None:
    """Check a run of which so many silos, the last, joined."""
    silos = scenario.federation.silos
    keys = {silo: SigningKey(f"{silo:*>32}".encode()).public for silo in silos}
    roster = Roster("f", tuple(Entered(silo, key) for silo, key in keys.items()))
    charge = DpSgdEvent(2.0, 1.0, 0.5, 2, 10)
    joined = {silo: JoinedSilo(number, charge) for number, silo in enumerate(silos[len(silos) - found :], 2)}
    absent = dict.fromkeys(silos[: len(silos) - found], "ledger-failed")
    check_can_begin(scenario, roster, Joined(joined, absent), NOTHING_RESERVED)


@pytest.mark.parametrize(
    ("silos", "found", "settings", "words"),
    [
        (3, 2, MASKED, r"3 silos begin a round at least \(federation.min_silos = 2 is .* name more under federation"),
        (3, 2, [*MASKED, ROLLED], r"3 silos begin a round at least"),
        (4, 2, MASKED, r"3 silos begin a round at least"),
        (5, 2, [*MASKED, "federation.cohort=3"], r"3 silos begin a round at least"),
        (6, 3, MASKED, r"4 of the 6 in federation.silos have to sign .*colluding = 0\)"),
        (5, 3, [*MASKED, "encryption.colluding=1", "federation.min_silos=3"], r"4 of the 5 .*colluding = 1\)"),
        (9, 4, [*MASKED, "federation.cohort=3"], r"5 of the 9 in federation.silos have to sign"),
        (401, 301, [*MASKED, "encryption.dropping=160"], r"301 silos cannot tolerate 0 colluding and 160 dropping out"),
        (4, 3, [*MASKED, "federation.weights={s2=50.0,s1=50.0}"], r"could be nearly one silo's update"),
        (4, 3, [*SUMMED, "federation.weights={s2=50.0,s1=50.0}"], r"could be nearly one silo's update"),
    ],
)  # fmt: skip
def test_a_run_whose_rounds_would_all_fail_does_not_begin(
    silos: int, found: int, settings: list[str], words: str, tiny_file: Path
) -> None:
    scenario = of(tiny_file, silos, *settings)
    begin(scenario, silos)
    with pytest.raises(DropoutError, match=rf"^{found} silos are too few to begin: .*{words}") as refused:
        begin(scenario, found)
    gone = ", ".join(sorted(f"s{number} (ledger-failed)" for number in range(1, silos - found + 1)))
    assert f"; did not join: {gone}. Each silo's own log says why" in str(refused.value)
    assert "2 to 3" not in str(refused.value)


@pytest.mark.parametrize(
    ("silos", "found", "settings"),
    [
        (4, 3, MASKED),
        (5, 3, MASKED),
        (6, 3, [*MASKED, ROLLED]),  # nobody signs a list
        (9, 5, [*MASKED, "federation.cohort=3"]),
        (3, 2, SUMMED),  # without masks two are a sum as any other
        (3, 2, ["encryption.secure_aggregation=off"]),
        (4, 3, ["encryption.secure_aggregation=off", "federation.weights={s2=50.0,s1=50.0}"]),
    ],
)
def test_a_run_that_can_come_to_a_sum_begins(silos: int, found: int, settings: list[str], tiny_file: Path) -> None:
    begin(of(tiny_file, silos, *settings), found)


@pytest.mark.parametrize(
    ("settings", "least"),
    [(MASKED, 3), ([*MASKED, "federation.min_silos=4"], 4), (SUMMED, 2), (["encryption.secure_aggregation=off"], 2)],
)
def test_a_round_begins_with_min_silos_and_under_masks_with_three_at_least(
    settings: list[str], least: int, tiny_file: Path
) -> None:
    assert least_silos(of(tiny_file, 5, *settings)) == least
