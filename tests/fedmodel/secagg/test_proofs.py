"""The model of secure aggregation that a solver searches: it shows the known attacks, and it is the real code's.

Everything here has fixed seeds. `python -m docs.proofs` asks about larger federations.
"""

from __future__ import annotations

import random

import pytest

from docs.proofs.__main__ import ATTACKS, HOLD, QUICK, Attack, broken, said
from docs.proofs.model import BASE, COMMIT, LEDGER, RULES, SURVIVORS, Ask, Size
from docs.proofs.search import Run, Search
from fedmodel.errors import Rule
from fedmodel.secagg.messages import Secret
from tests.replaying import Replay, begin, hostile_request, replay

NAMED = {
    SURVIVORS: set(),
    BASE: {Rule.SURVIVORS, Rule.OUT_OF_ORDER},
    LEDGER: {Rule.STALE, Rule.REPLAYED},
    COMMIT: {Rule.QUORUM, Rule.TWO_FACED},
}
SHOWN = [attack for attack in ATTACKS if attack.rule in NAMED]


@pytest.mark.parametrize("size", QUICK, ids=said)
def test_no_run_of_a_small_federation_breaks_a_claim(size: Size) -> None:
    search = Search(size)
    assert search.run_with(search.opens_a_sum(size.n_min - size.colluding)) is not None
    assert None not in broken(size).values()


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("size", HOLD[len(QUICK) :], ids=said)
def test_no_run_breaks_a_claim(size: Size) -> None:
    search = Search(size)
    assert search.run_with(search.opens_a_sum(size.n_min - size.colluding)) is not None
    assert None not in broken(size).values()


def found(attack: Attack) -> Run:
    search = Search(attack.size, RULES - {attack.rule})
    search.leave_out_what_nobody_can_play()
    run = search.find(attack.claim)
    assert run is not None
    return run


@pytest.mark.parametrize("attack", SHOWN, ids=lambda attack: f"{attack.rule}: {attack.claim}")
def test_a_rule_taken_out_is_an_attack_that_the_real_code_refuses(attack: Attack) -> None:
    """What the solver found is played to real silos, step by step; model and code refuse the same steps."""
    run = found(attack)
    both = replay(attack.size, run)
    rules = {rule for _, _, rule in both.refused}
    assert rules & NAMED[attack.rule] or attack.rule == SURVIVORS  # without which nothing is refused, and less is given
    for _, survivors, reveal in both.revealed:
        if reveal.sender not in survivors:
            assert all(secret is Secret.ROOT for secret, _ in reveal.shares.values())
    least = both.smallest_sum()  # refuses both secrets of one silo
    assert least is None or least + attack.size.colluding >= attack.size.n_min


def test_without_commits_the_attack_opens_a_single_update_of_the_real_code() -> None:
    """`consistency = "quorum"` is what the documentation says: the same run is refused nowhere."""
    attack = next(attack for attack in ATTACKS if attack.rule == COMMIT)
    both = replay(attack.size, found(attack), RULES - {COMMIT}, consistency="quorum")
    assert both.refused == []
    assert both.smallest_sum() == 1


def test_without_commits_no_two_secrets_and_no_two_sums_follow() -> None:
    search = Search(Size(4, 1), RULES - {COMMIT})
    assert [search.find(claim) is None for claim in ("two secrets", "two updates", "two sums")] == [True] * 3


SIZES = [
    Size(4, 1, rounds=2, attempts=2, rosters=2, restores=True),
    Size(5, 1, rounds=2, restores=True),
    Size(3, attempts=2),
]


def random_server(size: Size, seed: int, requests: int, consistency: str = "commit") -> Replay:
    """Ask whatever comes to mind, and hold the real code against the model each time."""
    chance = random.Random(seed)  # noqa: S311 - it chooses what is tried
    both = Replay(size, RULES if consistency == "commit" else RULES - {COMMIT}, consistency)
    begin(both, chance)
    for _ in range(requests):
        one, ask, about = hostile_request(both, chance)
        both.ask(one, ask, **about)
    return both


@pytest.mark.parametrize("size", SIZES, ids=said)
def test_model_and_real_code_do_and_refuse_the_same(size: Size) -> None:
    refused, revealed, stale = set(), 0, 0
    for seed in range(3):
        both = random_server(size, seed, 50)
        refused |= {ask for _, ask, _ in both.refused}
        stale += sum(rule is Rule.STALE for *_, rule in both.refused)
        revealed += len(both.revealed)
    assert refused >= {Ask.ADVERT, Ask.DEAL, Ask.MASK, Ask.COMMIT, Ask.REVEAL}
    assert revealed > 0
    assert (stale > 0) == size.restores


def test_without_commits_model_and_real_code_do_and_refuse_the_same() -> None:
    assert sum(len(random_server(Size(4, 1), seed, 40, "quorum").revealed) for seed in range(2)) > 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(100, 130))
def test_model_and_real_code_do_and_refuse_the_same_for_long(seed: int) -> None:
    for size in SIZES:
        random_server(size, seed, 100)
