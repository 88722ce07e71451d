"""The server against hostile and vanishing silos: the exact sum or a closed failure, and who was false is named."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmodel.crypto import Suite, seal, verify
from fedmodel.errors import AggregationRefused, DropoutError, FedmodelError, Rule
from fedmodel.secagg import Collection, Progress, Window, messages, shamir
from fedmodel.secagg.keys import commitment, envelope_context
from fedmodel.secagg.messages import Advert, Commit, Kind, Mask, MessageScope, Reveal, Secret, Share
from fedmodel.secagg.ring import WIDTHS, RingBits, carrier, signed
from tests.fedmodel.secagg.peers import (
    MODEL,
    RULES,
    RUN,
    STAGES,
    SUITES,
    Federation,
    Opened,
    Round,
    View,
    collect_adverts,
    is_uniform,
    open_window,
    refusal,
    run_round,
    summed,
    vanishing,
    words_of,
)

WINDOW = Window(RUN, 1, 1, 1)
BOTH = pytest.mark.parametrize(
    ("suite", "ring"), list(itertools.product(SUITES, (16, 32))), ids=lambda value: getattr(value, "name", value)
)


def exact(held: Round, total: np.ndarray) -> bool:
    """Whether a sum is that of the survivors' updates, bit for bit."""
    updates = held.federation.updates()
    expected = summed([updates[number] for number in held.tally.survivors], held.federation.policy.ring_bits)
    return total.tobytes() == expected.tobytes()


def threshold_of(silos: int, colluding: int) -> int:
    return (silos + colluding) // 2 + 1


# Silos that vanish


@BOTH
@pytest.mark.parametrize("silos", [3, 4, 5, 6])
def test_every_subset_vanishing_at_mask(suite: Suite, ring: int, silos: int) -> None:
    opened = open_window(Federation(silos, colluding=0, n_min=2, suite=suite, ring_bits=ring))
    before = opened.federation.moment()
    least = max(2, threshold_of(silos, 0))  # b comes back from survivors alone
    seen = 0
    for count in range(silos + 1):
        for gone in itertools.combinations(range(1, silos + 1), count):
            # Whether they missed the training only, and are there to sign and to reveal, or are gone for good.
            for stages in ((Kind.MASK,), (Kind.MASK, Kind.COMMIT, Kind.REVEAL)):
                opened.federation.go_back(before)
                away = dict.fromkeys(stages, gone)
                if silos - count < least:
                    with pytest.raises(DropoutError):
                        run_round(opened, gone=away)
                    continue
                held, total = run_round(opened, gone=away)
                assert held.tally.survivors == tuple(sorted(set(range(1, silos + 1)) - set(gone)))
                assert exact(held, total)
                seen += 1
    assert seen == 2 * sum(math.comb(silos, count) for count in range(silos - least + 1))


def expected(silos: int, at: dict[int, Kind], federation: Federation) -> type[Exception] | None:
    """Return how a round must end where silos vanish for good at a stage each."""
    policy = federation.policy
    gone = vanishing(at)
    left = {stage: silos - len(gone[stage]) for stage in STAGES}
    if left[Kind.ADVERT] < max(3, policy.n_min):
        return AggregationRefused
    threshold = threshold_of(left[Kind.ADVERT], policy.colluding)
    enough = (
        left[Kind.SHARE] >= max(policy.n_min, threshold)
        and left[Kind.MASK] >= policy.n_min
        and left[Kind.COMMIT] >= federation.quorum()
        and left[Kind.REVEAL] >= threshold
    )
    return None if enough else DropoutError


def check_vanishing(silos: int, at: dict[int, Kind], **policy) -> bool:
    """Run a round with silos that vanish for good; return whether it gave a sum."""
    federation = Federation(silos, **policy)
    gone = vanishing(at)
    failure = expected(silos, at, federation)
    if failure:
        with pytest.raises(failure) as caught:
            run_round(open_window(federation, gone=gone), gone=gone)
        assert failure is DropoutError or caught.value.rule is Rule.COHORT
        return False
    held, total = run_round(open_window(federation, gone=gone), gone=gone)
    assert exact(held, total)
    assert set(held.tally.survivors) == set(federation.numbers) - gone[Kind.MASK]
    return True


@pytest.mark.parametrize("colluding", [0, 1])
def test_each_of_three_silos_vanishing_at_each_stage(colluding: int) -> None:
    """All 6^3 ways in which three silos vanish at one of five stages, or not."""
    ends = [
        check_vanishing(3, {number: stage for number, stage in enumerate(at, 1) if stage}, colluding=colluding)
        for at in itertools.product((None, *STAGES), repeat=3)
    ]
    assert any(ends)
    assert not all(ends)


@pytest.mark.parametrize("n_min", [2, 4])
def test_each_of_five_silos_vanishing_at_each_stage(n_min: int) -> None:
    """All ways to spread five silos over five stages and staying, which is where silos differ only in number."""
    for at in itertools.combinations_with_replacement((None, *STAGES), 5):
        check_vanishing(5, {number: stage for number, stage in enumerate(at, 1) if stage}, n_min=n_min, colluding=0)


@BOTH
def test_four_silos_vanishing_at_each_stage_of_both_suites_and_rings(suite: Suite, ring: int) -> None:
    for at in itertools.combinations_with_replacement((None, *STAGES[1:]), 4):
        told = {number: stage for number, stage in enumerate(at[::-1], 1) if stage}
        check_vanishing(4, told, n_min=2, colluding=0, suite=suite, ring_bits=ring)


def test_a_quorum_that_is_not_reached_is_a_closed_failure() -> None:
    """And no silo gives a share for less."""
    opened = open_window(Federation(5))
    held = opened.round()
    held.mask(opened.federation.updates())
    held.close()
    held.commit(gone=[4, 5])
    with pytest.raises(DropoutError, match="3 of 5 silos signed"):
        held.tally.commits()
    assert refusal(held.reveal_one, 1, commits=list(held.commits.values())) is Rule.QUORUM


@pytest.mark.parametrize("gone", [[], [2]])
def test_the_server_knows_when_it_has_enough(gone: list[int]) -> None:
    """Four signatures of five, four shares of each secret: not one earlier, and then the sum is there.

    Whoever is not in the sum gives no share of b, so without silo 2's update it takes all others.
    """
    opened = open_window(Federation(5))
    held = opened.round()
    held.mask(opened.federation.updates(), gone)
    held.close()
    told = []
    for number in opened.federation.numbers:
        held.tally.add_commit(held.commit_one(number))
        told.append(held.tally.has_quorum)
    assert told == [False, False, False, True, True]
    told = []
    for number in opened.federation.numbers:
        held.tally.add_reveal(held.reveal_one(number))
        told.append(held.tally.is_recoverable)
        if told[-1]:
            assert exact(held, held.tally.total())
        else:
            with pytest.raises(DropoutError):
                held.tally.total()
    assert told == [False, False, False, not gone, True]


def test_too_few_shares_are_a_closed_failure() -> None:
    with pytest.raises(DropoutError, match="3 shares"):
        run_round(open_window(Federation(5)), gone={Kind.REVEAL: [1, 5]})
    held, total = run_round(open_window(Federation(5)), gone={Kind.REVEAL: [5]})
    assert exact(held, total)


def test_too_few_that_dealt_are_a_closed_failure() -> None:
    with pytest.raises(DropoutError, match="3 silos dealt"):
        open_window(Federation(5), gone={Kind.SHARE: [1, 2]})


@BOTH
def test_a_window_with_other_dropouts_each_round(suite: Suite, ring: int) -> None:
    """Silo 2 misses the second round's MASK and is back in the third; fresh masks each, dealt at once."""
    opened = open_window(Federation(5, colluding=0, suite=suite, ring_bits=ring), Window(RUN, 4, 2, 4))
    gone = {
        4: {},
        5: {Kind.MASK: [2]},
        6: {Kind.MASK: [5], Kind.COMMIT: [3], Kind.REVEAL: [4]},
        7: {Kind.MASK: [1, 3]},
    }
    for number, away in gone.items():
        held, total = run_round(opened, number, gone=away)
        assert exact(held, total)
        assert set(held.tally.survivors) == {1, 2, 3, 4, 5} - set(away.get(Kind.MASK, ()))
        assert not held.refused


def test_a_silo_that_misses_a_whole_round_is_back_in_the_next() -> None:
    opened = open_window(Federation(5), Window(RUN, 1, 1, 3))
    for number, away in {1: [2], 2: [], 3: [2]}.items():
        held, total = run_round(opened, number, gone=dict.fromkeys((Kind.MASK, Kind.COMMIT, Kind.REVEAL), away))
        assert exact(held, total)


def test_a_failed_attempt_is_made_anew_with_fresh_keys() -> None:
    federation = Federation(5)
    first = open_window(federation)
    with pytest.raises(DropoutError):
        run_round(first, gone={Kind.COMMIT: [1, 2]})
    second = open_window(federation, Window(RUN, 1, 2, 1))
    held, total = run_round(second)
    assert exact(held, total)
    assert not set(keys_of(first.collection)) & set(keys_of(second.collection))


def keys_of(collection: Collection) -> Iterator[bytes]:
    for advert in collection.adverts.values():
        yield from (advert.transport, advert.nonce, *advert.mask_keys, *advert.commitments)


def test_windows_follow_each_other() -> None:
    """The adverts of the next window leave with the last round's shares."""
    federation = Federation(4)
    for first in (1, 3):
        opened = open_window(federation, Window(RUN, first, 1, 2))
        for number in opened.window.rounds:
            held, total = run_round(opened, number)
            assert exact(held, total)


@settings(max_examples=60)
@given(st.data())
def test_the_decoded_sum_is_that_of_the_quantised_vectors(data: st.DataObject) -> None:
    """Any cohort, any dropouts that leave enough: the sum is that of the integers, bit for bit."""
    silos = data.draw(st.integers(3, 6))
    colluding = data.draw(st.integers(0, 1))
    ring = data.draw(st.sampled_from(WIDTHS))
    suite = data.draw(st.sampled_from(SUITES))
    federation = Federation(silos, n_min=colluding + 2, colluding=colluding, ring_bits=ring, suite=suite)
    spare = silos - max(federation.quorum(), threshold_of(silos, colluding), federation.policy.n_min)
    at = data.draw(st.dictionaries(st.integers(1, silos), st.sampled_from(STAGES[1:]), max_size=spare))
    coordinates = st.lists(st.floats(-1.5, 1.5, width=32), min_size=4, max_size=4)
    vectors = {number: np.array(data.draw(coordinates), np.float32) for number in federation.numbers}
    quantizer = federation.policy.quantizer
    updates = {number: quantizer.encode(vector) for number, vector in vectors.items()}
    gone = vanishing(at)
    held, total = run_round(open_window(federation, gone=gone), updates=updates, gone=gone)
    integers = sum(signed(ring, updates[number]).astype(np.int64) for number in held.tally.survivors)
    assert signed(ring, total).tolist() == integers.tolist()
    decoded = quantizer.decode(total)
    assert (decoded == integers / quantizer.scale).all()
    clipped = sum(np.clip(vectors[number].astype(np.float64), -1, 1) for number in held.tally.survivors)
    assert np.abs(decoded - clipped).max() <= len(held.tally.survivors) / quantizer.scale


@pytest.mark.parametrize("ring", WIDTHS)
def test_the_largest_sums_do_not_wrap(ring: RingBits) -> None:
    federation = Federation(6, ring_bits=ring)
    quantizer = federation.policy.quantizer
    ends = np.array([1.0, -1.0], np.float32)
    opened = open_window(federation)
    _, total = run_round(opened, updates={number: quantizer.encode(ends) for number in federation.numbers})
    assert quantizer.decode(total).tolist() == [6 * quantizer.levels / quantizer.scale * sign for sign in (1, -1)]


@pytest.mark.parametrize("ring", WIDTHS)
def test_sums_of_the_ring_wrap(ring: RingBits) -> None:
    """What is added up are ring elements: at the ring's edge the sum goes on at zero, in masking and in unmasking."""
    federation = Federation(4, ring_bits=ring)
    edge = np.array([2**ring - 1, 2 ** (ring - 1), 1, 0], carrier(ring))
    _, total = run_round(open_window(federation), updates=dict.fromkeys(federation.numbers, edge))
    assert total.tolist() == [2**ring - 4, 0, 4, 0]


def test_a_ring_of_more_than_three_hundred_silos(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each silo deals to its neighbours only. That a signature verifies is a fact about its bytes, and kept."""
    monkeypatch.setattr(messages, "verify", lru_cache(maxsize=None)(verify))
    silos = 310
    federation = Federation(silos, n_min=7, colluding=5, dropping=5, secrecy_bits=40)
    at = {17: Kind.SHARE, 100: Kind.MASK, 101: Kind.MASK, 230: Kind.COMMIT, 231: Kind.REVEAL}
    gone = vanishing(at)
    opened = open_window(federation, gone=gone)
    topology = opened.collection.topology
    assert (topology.complete, topology.degree) == (False, 20)
    assert all(len(peers) == 20 for peers in opened.collection.peers.values())
    held, total = run_round(opened, updates=federation.updates(3), gone=gone)
    alive = set(federation.numbers) - {17, 100, 101}
    assert held.tally.survivors == tuple(sorted(alive))
    updates = federation.updates(3)
    assert (total == summed([updates[number] for number in alive])).all()
    reveal = Reveal.read(held.reveals[1], held.place)
    assert len(reveal.shares) <= 20
    assert 1 not in reveal.shares  # only in a complete graph does a silo keep a share of its own


# Hostile silos


def liar(held_by: Federation, liars: set[int]):
    """Return a tampering in which some silos reveal false shares, each in a way of its own."""

    def tamper(kind: Kind, sender: int, message):
        if kind is not Kind.REVEAL or sender not in liars:
            return message
        place = MessageScope(held_by.setting(WINDOW), 1)
        reveal = Reveal.read(message, place)
        shares = {one: (what, pow(share, sender + 2, shamir.PRIME)) for one, (what, share) in reveal.shares.items()}
        return replace(reveal, shares=shares).sign(place, held_by.identities[sender])

    return tamper


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("liars", [{1}, {3}, {6}, {1, 2}, {2, 4}, {5, 6}], ids=str)
def test_false_shares_are_found_and_named(suite: Suite, liars: set[int]) -> None:
    """Of each six shares four do; two may be false. Those that were not needed are not looked at."""
    federation = Federation(6, colluding=0, suite=suite)
    # A silo that is not in the sum gives no share of b, which leaves room for one false one.
    gone = [4] if len(liars) == 1 else []
    held, total = run_round(open_window(federation), gone={Kind.MASK: gone}, tamper=liar(federation, liars))
    assert exact(held, total)
    assert held.tally.blamed.keys() <= liars
    if min(liars) <= 4:
        assert held.tally.blamed.keys() == liars


@pytest.mark.parametrize("gone", [set(), {5}], ids=["all reveal", "one vanished"])
def test_half_of_the_spare_shares_are_found_false_where_not_all_sets_can_be_tried(gone: set[int]) -> None:
    """Of 48 shares 29 bring a secret back, in 10^13 sets, and nine lie; 2,000 of these sets find none without a lie."""
    federation = Federation(48, colluding=9, n_min=11)
    liars = {1, 4, 9, 16, 22, 25, 36, 47, 48}
    tampered = liar(federation, liars)
    held, total = run_round(open_window(federation), gone={Kind.MASK: gone}, tamper=tampered)
    assert exact(held, total)
    assert held.tally.blamed.keys() == liars
    assert held.tally.false_dealers == set()


def test_a_false_dealer_is_certain_where_its_shares_cannot_be_decoded() -> None:
    federation = Federation(22, colluding=4, n_min=6)
    false = redealt(federation, 2, lambda _: shamir.random_element().to_bytes(32) * 2)
    held = open_window(federation, tamper=false).round()
    held.mask(federation.updates())
    held.close()
    held.commit()
    held.reveal()
    with pytest.raises(DropoutError, match="give nothing"):
        held.tally.total()
    assert held.tally.false_dealers == {2}


def test_more_false_shares_than_can_be_told_apart_are_a_closed_failure() -> None:
    federation = Federation(6, colluding=0)
    with pytest.raises(DropoutError, match="give nothing"):
        run_round(open_window(federation), tamper=liar(federation, {1, 2, 3}))


def test_a_false_share_of_one_secret_does_not_spoil_the_others() -> None:
    federation = Federation(6, colluding=0)

    def tamper(kind: Kind, sender: int, message):
        if (kind, sender) != (Kind.REVEAL, 1):
            return message
        place = MessageScope(federation.setting(WINDOW), 1)
        reveal = Reveal.read(message, place)
        return replace(reveal, shares={**reveal.shares, 5: (Secret.B, 7)}).sign(place, federation.identities[1])

    held, total = run_round(open_window(federation), tamper=tamper)
    assert exact(held, total)
    assert held.tally.blamed == {1: "its share of silo 5's secret is false, or silo 5 dealt it so"}


def test_false_shares_that_cancel_frame_nobody_for_certain() -> None:
    """Two liars choose errors that cancel in a set that will be tried: it gives the secret, on another polynomial."""
    federation = Federation(8, colluding=2, n_min=4)
    opened = open_window(federation)
    points = list(range(2, 2 + opened.collection.topology.threshold))
    weights = shamir.lagrange_at_zero(points)

    def tamper(kind: Kind, sender: int, message):
        if kind is not Kind.REVEAL or sender not in (2, 3):
            return message
        place = MessageScope(federation.setting(WINDOW), 1)
        reveal = Reveal.read(message, place)
        error = weights[3] if sender == 2 else -weights[2]
        shares = {one: (which, (share + error) % shamir.PRIME) for one, (which, share) in reveal.shares.items()}
        return replace(reveal, shares=shares).sign(place, federation.identities[sender])

    held, total = run_round(opened, tamper=tamper)
    assert exact(held, total)
    assert not any("is false, or" in reason for reason in held.tally.blamed.values())


def test_a_false_offer_costs_whoever_made_it() -> None:
    """Of two alone at odds, the one whose share the other could not use: its partner's update can do without it."""
    federation = Federation(5, colluding=0, suite=Suite.POST_QUANTUM)

    def tamper(kind: Kind, sender: int, message):
        if (kind, sender) != (Kind.SHARE, 2):
            return message
        place = MessageScope(federation.setting(WINDOW), 1)
        shares = [Share.read(data, place) for data in message]
        false = [replace(one, offers=(bytes(1168),)) if one.receiver == 4 else one for one in shares]
        return [one.sign(place, federation.identities[2]) for one in false]

    held, total = run_round(open_window(federation, tamper=tamper))
    assert held.tally.survivors == (1, 3, 4, 5)
    assert held.tally.blamed.keys() == {2}
    assert exact(held, total)


def test_whom_a_first_try_doubted_is_cleared_by_a_second_that_succeeds() -> None:
    federation = Federation(6)
    held = open_window(federation).round()
    held.mask(federation.updates())
    held.close()
    held.commit()
    signed = held.tally.commits()
    for number in (6, 1, 2, 3, 4, 5):
        message = held.reveal_one(number, commits=signed)
        if number == 6:
            reveal = Reveal.read(message, held.place)
            false = {one: (secret, (share + 1) % shamir.PRIME) for one, (secret, share) in reveal.shares.items()}
            message = replace(reveal, shares=false).sign(held.place, federation.identities[6])
        held.tally.add_reveal(message)
        if held.tally.is_recoverable:
            try:
                total = held.tally.total()
            except DropoutError:
                # With exactly enough shares somebody is doubted, and nobody is for certain.
                assert held.tally.blamed
                assert not held.tally.false_dealers
            else:
                break
    assert exact(held, total)
    assert held.tally.false_dealers == set()
    assert held.tally.blamed == {}


@pytest.mark.parametrize("key", ["mask_keys", "transport"])
@pytest.mark.parametrize(
    ("suite", "weak"),
    [
        (Suite.CLASSIC, bytes(32)),
        (Suite.POST_QUANTUM, bytes(1184 + 32)),
        (Suite.POST_QUANTUM, b"\xff" * 1184 + (9).to_bytes(32, "little")),
    ],
    ids=["small order", "small order beside a lattice", "past the lattice's modulus"],
)
def test_an_advert_with_a_key_that_cannot_be_used_costs_its_sender_its_part(
    key: str, suite: Suite, weak: bytes
) -> None:
    federation = Federation(5, suite=suite)

    def tamper(kind: Kind, sender: int, message):
        if (kind, sender) != (Kind.ADVERT, 5):
            return message
        place = MessageScope(federation.setting(WINDOW), 1)
        changed = {key: (weak,) if key == "mask_keys" else weak}
        return replace(Advert.read(message, place), **changed).sign(place, federation.identities[5])

    opened = open_window(federation, tamper=tamper)
    assert opened.refused == [(Kind.ADVERT, 5)]
    assert exact(*run_round(opened))


@pytest.mark.parametrize(("silos", "gone"), [(4, {3}), (3, set())])
def test_an_honest_dealer_is_never_left_out_for_one_liar(silos: int, gone: set[int]) -> None:
    """With exactly t shares, one of them false, nobody's secret comes back, and nothing says whose fault it is."""
    federation = Federation(silos, n_min=3, dropping=0)
    held = open_window(federation).round()
    held.mask(federation.updates())
    held.close()
    held.commit()
    held.reveal(gone, liar(federation, {silos}))
    with pytest.raises(DropoutError, match="give nothing"):
        held.tally.total()
    assert held.tally.false_dealers == set()


def test_a_false_dealer_is_certain_when_every_set_was_tried() -> None:
    federation = Federation(5, colluding=1)
    opened = open_window(federation, tamper=redealt(federation, 2, lambda _: shamir.random_element().to_bytes(32) * 2))
    held = opened.round()
    held.mask(federation.updates())
    held.close()
    held.commit()
    held.reveal()
    with pytest.raises(DropoutError, match="give nothing"):
        held.tally.total()
    assert held.tally.false_dealers == {2}


def redealt(federation: Federation, sender: int, rows, receivers=None):
    """Return a tampering in which a silo seals other shares, which are made from the receiver's number."""
    adverts: dict[int, Advert] = {}

    def tamper(kind: Kind, number: int, message):
        place = MessageScope(federation.setting(WINDOW), 1)
        if kind is Kind.ADVERT:
            adverts[number] = Advert.read(message, place)
        if (kind, number) != (Kind.SHARE, sender):
            return message
        return [again(Share.read(data, place), place) for data in message]

    def again(share: Share, place: MessageScope) -> bytes:
        if receivers is None or share.receiver in receivers:
            context = envelope_context(place.setting.base, share.cohort, sender, share.receiver)
            public = adverts[share.receiver].transport
            share = replace(share, envelope=seal(place.setting.policy.suite, public, rows(share.receiver), context))
        return share.sign(place, federation.identities[sender])

    return tamper


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("vanished", [False, True])
def test_a_false_dealer_is_named_and_the_round_fails_closed(suite: Suite, vanished: bool) -> None:
    """Shares of what was not committed to, whether of b (it survived) or of root (it vanished)."""
    federation = Federation(6, colluding=0, suite=suite)
    opened = open_window(federation, tamper=redealt(federation, 2, lambda receiver: receiver.to_bytes(32, "big") * 2))
    assert not any(opened.faults.values())  # whoever opens them cannot know
    held = opened.round()
    held.mask(federation.updates(), gone=[2] if vanished else [])
    held.close()
    held.commit()
    held.reveal()
    with pytest.raises(DropoutError):
        held.tally.total()
    assert held.tally.blamed.keys() == {2}


def test_a_false_dealer_that_vanished_before_anybody_masked_with_it_costs_nothing() -> None:
    federation = Federation(6, colluding=0)
    held, total = run_round(
        open_window(federation, tamper=redealt(federation, 2, lambda receiver: b"x" * 63)), gone={Kind.MASK: [2]}
    )
    assert exact(held, total)
    assert not held.tally.blamed


@pytest.mark.parametrize("suite", SUITES)
def test_false_ciphertexts_to_all_cost_their_sender_its_part(suite: Suite) -> None:
    federation = Federation(6, colluding=0, suite=suite)
    opened = open_window(federation, tamper=redealt(federation, 4, lambda receiver: b"x" * 10))
    assert all((len(faults) == 1) == (number != 4) for number, faults in opened.faults.items())
    held, total = run_round(opened)
    assert held.tally.survivors == (1, 2, 3, 5, 6)
    assert held.tally.blamed.keys() == {4}
    assert exact(held, total)


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("sender", [1, 4, 6])
def test_a_false_ciphertext_to_one_costs_one_of_the_two(suite: Suite, sender: int) -> None:
    federation = Federation(6, colluding=0, suite=suite)
    receiver = 3
    opened = open_window(federation, tamper=redealt(federation, sender, lambda _: b"x" * 10, {receiver}))
    held, total = run_round(opened)
    assert len(held.tally.survivors) == 5
    assert held.tally.blamed.keys() == {sender}  # whose share the other could not use
    assert exact(held, total)


def test_a_silo_left_out_for_a_neighbour_it_did_not_mask_with_can_still_sign() -> None:
    """It gives no share of any b, so whom it masked with is nobody's concern; a survivor's is."""
    for survivors in ((1, 2, 3, 5, 6), (1, 2, 3, 4, 5, 6)):
        federation = Federation(6, colluding=0)
        held = open_window(federation, tamper=redealt(federation, 1, lambda _: b"x" * 10, {4})).round()
        held.mask(federation.updates())
        held.close()
        if 4 in survivors:
            assert refusal(held.commit_one, 4, survivors) is Rule.NOT_MASKED_WITH
        else:
            assert Commit.read(held.commit_one(4, survivors), held.place).sender == 4


def test_shares_that_are_not_in_the_field_count_as_not_dealt() -> None:
    federation = Federation(6, colluding=0)
    opened = open_window(federation, tamper=redealt(federation, 2, lambda _: b"\xff" * 64, {3}))
    assert [number for number, faults in opened.faults.items() if faults] == [3]


def test_a_false_offer_to_who_vanishes_is_a_closed_failure() -> None:
    """The lower silo's secret, sealed to the upper's mask key, does not open: what the two shared is lost."""
    federation = Federation(5, colluding=0, suite=Suite.POST_QUANTUM)

    def tamper(kind: Kind, sender: int, message):
        if (kind, sender) != (Kind.SHARE, 2):
            return message
        place = MessageScope(federation.setting(WINDOW), 1)
        return [spoil(Share.read(data, place)).sign(place, federation.identities[2]) for data in message]

    def spoil(share: Share) -> Share:
        return replace(share, offers=(bytes(1168),)) if share.receiver == 4 else share

    opened = open_window(federation, tamper=tamper)
    assert [number for number, faults in opened.faults.items() if faults] == [4]
    with pytest.raises(DropoutError, match="silo 2 and vanished silo 4"):
        run_round(opened, gone={Kind.MASK: [4]})


@pytest.mark.parametrize("suite", SUITES)
def test_a_vanished_silo_is_recovered_from_its_root_alone(suite: Suite) -> None:
    """Whether it is the lower or the upper of a pair, and whoever else vanished too."""
    opened = open_window(Federation(6, colluding=0, suite=suite))
    before = opened.federation.moment()
    for gone in ([1], [6], [3], [1, 6], [2, 3]):
        opened.federation.go_back(before)
        held, total = run_round(opened, gone=dict.fromkeys((Kind.MASK, Kind.REVEAL), gone))
        assert exact(held, total)


def resigned(federation: Federation, sender: int, read, **fields):
    """Return a tampering in which one silo signs other fields."""
    kind = {Advert: Kind.ADVERT, Mask: Kind.MASK, Commit: Kind.COMMIT, Reveal: Kind.REVEAL}[read]

    def tamper(stage: Kind, number: int, message):
        if (stage, number) != (kind, sender):
            return message
        place = MessageScope(federation.setting(WINDOW), 1)
        data, *beside = message if kind is Kind.MASK else (message,)
        changed = replace(read.read(data, place), **fields).sign(place, federation.identities[sender])
        return (changed, *beside) if kind is Kind.MASK else changed

    return tamper


@pytest.mark.parametrize("stage", STAGES)
def test_a_bad_signature_costs_its_sender_its_part(stage: Kind) -> None:
    federation = Federation(6, colluding=0)

    def spoil(data: bytes) -> bytes:
        return data[:-1] + bytes([data[-1] ^ 1])

    def tamper(kind: Kind, sender: int, message):
        if (kind, sender) != (stage, 2):
            return message
        if kind is Kind.SHARE:
            return [*message[:-1], spoil(message[-1])]
        return (spoil(message[0]), message[1]) if kind is Kind.MASK else spoil(message)

    opened = open_window(federation, tamper=tamper)
    held, total = run_round(opened, tamper=tamper)
    if stage is Kind.SHARE:  # which is its receiver's to check: the two are at odds then
        assert list(opened.faults[6]) == [1]
        assert held.tally.blamed.keys() == {2}
    else:
        assert (*opened.refused, *held.refused) == ((stage, 2),)
    assert exact(held, total)
    assert (2 in held.tally.survivors) == (stage in (Kind.COMMIT, Kind.REVEAL))


@pytest.mark.parametrize("suite", SUITES)
def test_a_wrong_commitment_is_a_closed_failure_and_named(suite: Suite) -> None:
    federation = Federation(5, colluding=0, suite=suite)
    lying = resigned(federation, 2, Advert, commitments=(bytes(32),))

    def tamper(kind: Kind, sender: int, message):
        changed = lying(kind, sender, message)
        if changed is not message:
            # Its own state has the advert that it sends.
            state = json.loads(federation.states[sender])
            state["window"]["advert"] = changed.hex()
            federation.states[sender] = json.dumps(state).encode()
        return changed

    opened = open_window(federation, tamper=tamper)
    held = opened.round()
    held.mask(federation.updates())
    held.close()
    held.commit()
    held.reveal()
    with pytest.raises(DropoutError):
        held.tally.total()
    assert held.tally.blamed.keys() == {2}


@pytest.mark.parametrize("suite", SUITES)
def test_who_copies_anothers_key_is_left_out_with_it(suite: Suite) -> None:
    """Whose it was cannot be told; the others go on."""
    federation = Federation(6, colluding=0, suite=suite)
    seen: dict[int, Advert] = {}

    def tamper(kind: Kind, sender: int, message):
        place = MessageScope(federation.setting(WINDOW), 1)
        if kind is not Kind.ADVERT:
            return message
        seen[sender] = Advert.read(message, place)
        if sender != 5:
            return message
        return replace(seen[5], mask_keys=seen[2].mask_keys).sign(place, federation.identities[5])

    opened = open_window(federation, tamper=tamper)
    assert opened.collection.cohort == (1, 3, 4, 6)
    assert opened.collection.blamed.keys() == {2, 5}
    held, total = run_round(opened)
    assert exact(held, total)


def test_an_advert_is_taken_once_and_in_time() -> None:
    federation = Federation(4)
    collection = Collection(federation.setting(WINDOW))
    adverts = [federation.call(number, "advert", WINDOW) for number in (1, 2, 3, 4)]
    for data in adverts[:3]:
        collection.add_advert(data)
    assert refusal(collection.add_advert, adverts[0]) is Rule.REPEATED
    collection.close_adverts()
    assert refusal(collection.add_advert, adverts[3]) is Rule.REPEATED


def test_shares_are_taken_whole_and_once() -> None:
    federation = Federation(5)
    collection, adverts, _ = collect_adverts(federation, WINDOW)
    dealt = {number: federation.call(number, "deal", adverts) for number in (1, 2, 3)}
    for wrong in ([], dealt[1][:-1], [*dealt[1], dealt[1][0]], [*dealt[1][:-1], dealt[2][-1]], dealt[1] + dealt[2]):
        assert refusal(collection.add_shares, wrong) is Rule.SHARES
    place = MessageScope(federation.setting(WINDOW), 1)
    other = [
        replace(Share.read(data, place), cohort=bytes(32)).sign(place, federation.identities[3]) for data in dealt[3]
    ]
    assert refusal(collection.add_shares, other) is Rule.SHARES
    assert collection.add_shares(dealt[1][::-1]) == 1
    assert refusal(collection.add_shares, dealt[1]) is Rule.SHARES


def test_a_vector_other_than_the_one_signed_is_refused() -> None:
    federation = Federation(5)

    def tamper(kind: Kind, sender: int, message):
        if (kind, sender) != (Kind.MASK, 3):
            return message
        return message[0], message[1] + np.uint32(1)

    held, total = run_round(open_window(federation), tamper=tamper)
    assert held.refused == [(Kind.MASK, 3)]
    assert exact(held, total)
    assert 3 not in held.tally.survivors


def test_words_of_another_ring_or_length_are_refused() -> None:
    opened = open_window(Federation(5))
    held = opened.round()
    held.mask_one(1, words_of(32, 16, 1))
    for words in (words_of(32, 15, 2), words_of(16, 32, 2), words_of(32, 0, 2)):
        bits = 8 * words.dtype.itemsize
        message = Mask(2, bytes(32), messages.words_digest(bits, words), (1, 3, 4, 5))
        signed = message.sign(held.place, held.federation.identities[2])
        assert refusal(held.tally.add_masked, signed, words) is Rule.VECTOR


def test_a_masked_update_is_taken_once_and_only_of_who_dealt() -> None:
    opened = open_window(Federation(5), gone={Kind.SHARE: [5]})
    held = opened.round()
    held.mask(opened.federation.updates())
    assert refusal(held.tally.add_masked, held.masked[1], held.words[1]) is Rule.REPEATED
    identity = opened.federation.identities
    words = words_of(32, 16, 5)
    outside = Mask(5, bytes(32), messages.words_digest(32, words), (1, 2, 3, 4)).sign(held.place, identity[5])
    assert refusal(held.tally.add_masked, outside, words) is Rule.REPEATED
    fresh = opened.round()
    for whom in ((1, 3, 4, 5), (2, 3), (1, 6)):
        rule = Rule.MALFORMED if 6 in whom else Rule.SHARES
        claimed = Mask(2, bytes(32), messages.words_digest(32, words), whom).sign(held.place, identity[2])
        assert refusal(fresh.tally.add_masked, claimed, words) is rule
    held.close()
    late = opened.round()
    assert late.tally.add_masked(held.masked[1], held.words[1]) == 1


@pytest.mark.parametrize("suite", SUITES)
def test_a_mask_in_another_context_is_left_out_and_named(suite: Suite) -> None:
    opened = open_window(Federation(5, suite=suite))
    held = opened.round()
    for number, update in opened.federation.updates().items():
        held.mask_one(number, update, model=b"x" * 32 if number == 2 else MODEL)
    assert held.close() == (1, 3, 4, 5)
    assert held.tally.blamed.keys() == {2}
    for number in (1, 3, 4, 5):
        held.tally.add_commit(held.commit_one(number))
    assert refusal(held.commit_one, 2) is Rule.CONTEXT
    for number in (1, 3, 4, 5):
        held.tally.add_reveal(held.reveal_one(number))
    assert exact(held, held.tally.total())


def test_a_silo_that_says_it_masked_with_fewer_is_left_out() -> None:
    """It is at odds with two, each of them with it alone."""
    federation = Federation(6, colluding=0)
    held, total = run_round(open_window(federation), tamper=resigned(federation, 2, Mask, masked_with=(1, 3, 4)))
    assert held.tally.survivors == (1, 3, 4, 5, 6)
    assert held.tally.blamed.keys() == {2}
    assert exact(held, total)


def test_commits_and_reveals_on_another_list_or_twice_are_refused() -> None:
    opened = open_window(Federation(5))
    held = opened.round()
    held.mask(opened.federation.updates(), gone=[5])
    held.close()
    held.commit()
    identity = opened.federation.identities
    for commit in (Commit(1, held.context, bytes(32)), Commit(1, bytes(32), held.tally.told)):
        assert refusal(held.tally.add_commit, commit.sign(held.place, identity[1])) is Rule.TWO_FACED
    assert refusal(held.tally.add_commit, held.commits[1]) is Rule.TWO_FACED
    good = Reveal.read(held.reveal_one(1), held.place)
    rows = {
        Rule.TWO_FACED: [{"context": bytes(32)}, {"survivors": bytes(32)}],
        # b of a vanished silo, root of one that lives: shares which the server must not have, and does not take.
        Rule.SHARES: [{"shares": {5: (Secret.B, 1)}}, {"shares": {2: (Secret.ROOT, 1)}}],
    }
    for rule, changes in rows.items():
        for change in changes:
            assert refusal(held.tally.add_reveal, replace(good, **change).sign(held.place, identity[1])) is rule
    vanished = replace(good, sender=5, shares={1: (Secret.B, 1)})
    assert refusal(held.tally.add_reveal, vanished.sign(held.place, identity[5])) is Rule.SHARES
    held.tally.add_reveal(good.sign(held.place, identity[1]))
    assert refusal(held.tally.add_reveal, good.sign(held.place, identity[1])) is Rule.TWO_FACED


def test_a_witness_has_no_shares_to_reveal() -> None:
    opened = open_window(Federation(5), gone={Kind.ADVERT: [5]})
    held = opened.round()
    held.mask(opened.federation.updates())
    held.close()
    forged = Reveal(5, held.context, held.tally.told, {1: (Secret.B, 1)})
    signed = forged.sign(held.place, opened.federation.identities[5])
    assert refusal(held.tally.add_reveal, signed) is Rule.SHARES


def test_a_round_outside_the_window_is_refused() -> None:
    opened = open_window(Federation(4), Window(RUN, 3, 1, 2))
    for number in (2, 5):
        assert refusal(opened.round, number) is Rule.OUT_OF_ORDER
    assert refusal(lambda: Collection(opened.collection.setting).topology) is Rule.OUT_OF_ORDER


def test_many_words_are_added_up_on_all_cores() -> None:
    """Enough of them for threads: the same sum."""
    opened = open_window(Federation(4, colluding=0))
    updates = opened.federation.updates(400_000)
    _, total = run_round(opened, updates=updates, gone={Kind.MASK: [2]})
    assert (total == summed([updates[number] for number in (1, 3, 4)])).all()


# What masked updates look like, and what is left in a state


@pytest.mark.usefixtures("same_bytes")
@BOTH
def test_masked_updates_are_uniform_whatever_the_update(suite: Suite, ring: int) -> None:
    opened = open_window(Federation(4, suite=suite, ring_bits=ring))
    zeros = np.zeros(40_000, f"<u{ring // 8}")
    held = opened.round()
    held.mask(dict.fromkeys(opened.federation.numbers, zeros))
    held.close()
    assert all(is_uniform(words) > 1e-6 for words in held.words.values())
    # Partial sums too: no mask is of two silos alone.
    for count in (2, 3):
        for some in itertools.combinations(held.words.values(), count):
            assert is_uniform(summed(some)) > 1e-6
    assert is_uniform(zeros) < 1e-6


@pytest.mark.usefixtures("same_bytes")
@pytest.mark.parametrize("again", ["window", "attempt", "run"])
def test_two_runs_with_one_update_share_nothing(again: str) -> None:
    federation = Federation(4)
    first = open_window(federation)
    window = {"window": Window(RUN, 2, 1, 1), "attempt": Window(RUN, 1, 2, 1), "run": WINDOW}[again]
    rounds = []
    for opened in (first, None):
        opened = opened or open_window(federation, window)
        held = opened.round()
        held.mask({number: words_of(32, 4096, number) for number in federation.numbers})
        rounds.append((opened.collection, held))
        if opened is first and again == "run":
            federation.go_back((dict.fromkeys(federation.states), dict.fromkeys(federation.states, Progress())))
    (one, before), (other, after) = rounds
    assert not set(keys_of(one)) & set(keys_of(other))
    for number in federation.numbers:
        assert (before.words[number] == after.words[number]).mean() < 0.01
        assert is_uniform(before.words[number] - after.words[number]) > 1e-6


@pytest.mark.usefixtures("same_bytes")
def test_rounds_of_one_window_share_nothing() -> None:
    opened = open_window(Federation(4), Window(RUN, 1, 1, 2))
    update = words_of(32, 4096, 1)
    held = [opened.round(number) for number in (1, 2)]
    for one in held:
        one.mask(dict.fromkeys(opened.federation.numbers, update))
    for number in opened.federation.numbers:
        assert is_uniform(held[0].words[number] - held[1].words[number]) > 1e-6


def secrets_in(federation: Federation, number: int) -> dict[str, set[str]]:
    """Return the hex of what a silo's state holds, by what it is and, for a round's, the round."""
    window = json.loads(federation.states[number])["window"]
    found = {"transport": {window["transport"]}}
    for one, held in window["rounds"].items():
        found[f"root {one}"] = {held["root"]}
        found[f"b {one}"] = {held["b"]}
        found[f"pairs {one}"] = set(held["pairs"].values())
        found[f"shares {one}"] = {share for pair in held["held"].values() for share in pair}
    return {name: {value for value in values if value} for name, values in found.items()}


def left_of(state: bytes, secrets: dict[str, set[str]]) -> set[str]:
    """Return which of some secrets are anywhere in the bytes of a state."""
    return {name for name, values in secrets.items() if any(value.encode() in state for value in values)}


@pytest.mark.parametrize("suite", SUITES)
def test_secrets_are_erased_when_they_were_used(suite: Suite) -> None:
    federation = Federation(4, suite=suite)
    window = Window(RUN, 1, 1, 3)
    collection, adverts, _ = collect_adverts(federation, window)
    rounds = (1, 2, 3)
    for number in federation.numbers:
        collection.add_shares(federation.call(number, "deal", adverts))
    secrets = secrets_in(federation, 1)
    assert all(len(secrets[f"{name} 1"]) == 1 for name in ("root", "b"))
    before_receive = left_of(federation.states[1], secrets)
    assert {"transport", "root 1", "b 1", "root 2", "b 2", "root 3", "b 3"} <= before_receive
    for number in federation.numbers:
        federation.call(number, "receive", collection.shares_for(number))

    roots = {"transport", *(f"root {one}" for one in rounds)}
    assert not left_of(federation.states[1], secrets) & roots
    secrets |= {name: values for name, values in secrets_in(federation, 1).items() if values}
    kept = {f"{name} {one}" for one in rounds for name in ("b", "pairs", "shares")}
    assert left_of(federation.states[1], secrets) == kept
    assert len(secrets["shares 1"]) == 8
    assert len(secrets["pairs 1"]) == 3

    opened = Opened(federation, collection)
    held = opened.round(1)
    held.mask(federation.updates())
    assert left_of(federation.states[1], secrets) == kept - {"b 1", "pairs 1"}
    held.close()
    held.commit()
    assert left_of(federation.states[1], secrets) == kept - {"b 1", "pairs 1"}
    held.reveal()
    kept -= {"b 1", "pairs 1", "shares 1"}
    assert left_of(federation.states[1], secrets) == kept
    # Round 2 is never acted in: the first act in round 3 erases it.
    opened.round(3).mask_one(1, federation.updates()[1])
    assert left_of(federation.states[1], secrets) == {"shares 3"}
    # A new window takes the place of all that is left.
    federation.call(1, "advert", Window(RUN, 4, 1, 1))
    assert not left_of(federation.states[1], secrets)


def test_a_silo_that_revealed_without_masking_keeps_nothing_of_the_round() -> None:
    opened = open_window(Federation(5))
    secrets = secrets_in(opened.federation, 2)
    held, _ = run_round(opened, gone={Kind.MASK: [2]})
    assert held.tally.survivors == (1, 3, 4, 5)
    assert not left_of(opened.federation.states[2], secrets)


def test_what_comes_back_is_what_was_committed_to() -> None:
    """The honest server learns b of who survived and root of who vanished, and of nobody both."""
    opened = open_window(Federation(5))
    secrets = {number: secrets_in(opened.federation, number) for number in opened.federation.numbers}
    held, _ = run_round(opened, gone={Kind.MASK: [4]})
    view = View(held)
    assert [one for one in range(1, 6) if view.knows(Secret.B, one)] == [1, 2, 3, 5]
    assert [one for one in range(1, 6) if view.knows(Secret.ROOT, one)] == [4]
    for number in (1, 2, 3, 5):
        reveals = [Reveal.read(data, held.place) for data in held.reveals.values()]
        shares = {reveal.sender: reveal.shares[number][1] for reveal in reveals if number in reveal.shares}
        assert set(shares) == {1, 2, 3, 5}
        b = shamir.combine(shares, shamir.lagrange_at_zero(list(shares)))
        assert secrets[number]["b 1"] == {b.to_bytes(32, "big").hex()}
        told = opened.collection.adverts[number].commitments[0]
        assert commitment(b, opened.collection.setting.base, 1, number) == told


def test_failures_say_no_secret() -> None:
    """What is raised, refused and blamed names silos and rules."""
    federation = Federation(6, colluding=0)
    opened = open_window(federation)
    secrets = set().union(*(values for values in secrets_in(federation, 1).values()))
    with pytest.raises(FedmodelError) as caught:
        run_round(opened, tamper=liar(federation, {1, 2, 3}))
    words = str(caught.value)
    assert not any(value in words or str(int(value, 16)) in words for value in secrets)


def test_rules_of_a_context() -> None:
    """ctx binds round, cohort, model and configuration, and base binds the rest."""
    opened = open_window(Federation(4), Window(RUN, 1, 1, 2))
    setting, cohort = opened.collection.setting, opened.collection.cohort_digest
    contexts = {
        setting.context(1, cohort, MODEL, RULES),
        setting.context(2, cohort, MODEL, RULES),
        setting.context(1, bytes(32), MODEL, RULES),
        setting.context(1, cohort, RULES, RULES),
        setting.context(1, cohort, MODEL, MODEL),
        replace(setting, window=Window(RUN, 1, 2, 2)).context(1, cohort, MODEL, RULES),
        replace(setting, policy=replace(setting.policy, bound=2.0)).context(1, cohort, MODEL, RULES),
    }
    assert len(contexts) == 7
