"""A hostile server, one attack a test: what a silo refuses, by which rule, and what the server is left with."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import hypergeom

from fedmodel.crypto import SigningKey, Suite
from fedmodel.errors import AggregationRefused, ConfigError, CryptoError, DropoutError, FedmodelError, Rule
from fedmodel.secagg import Member, Participant, Policy, Progress, Roster, Setting, Window, read_numbers, shamir
from fedmodel.secagg import silo as silo_module
from fedmodel.secagg.keys import MaskKey, commitment, pair_key, self_key
from fedmodel.secagg.masking import apply_masks, subtract_mask
from fedmodel.secagg.messages import (
    Advert,
    Commit,
    Kind,
    MessageScope,
    Reveal,
    Secret,
    Share,
    graph_seed,
    survivors_digest,
)
from fedmodel.secagg.topology import neighbours_of, plan_topology
from tests.fedmodel.secagg.peers import (
    MODEL,
    RULES,
    RUN,
    SUITES,
    Federation,
    Moment,
    Opened,
    Round,
    View,
    collect_adverts,
    is_uniform,
    open_window,
    refusal,
    run_round,
    summed,
    words_of,
)

WINDOW = Window(RUN, 1, 1, 1)
FIELD = 2**255 - 19
# The points of order 8 on Curve25519; their u-coordinates.
ORDER_8 = (
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
)
LOW_ORDER = [number.to_bytes(32, "little") for number in (0, 1, *ORDER_8, FIELD - 1)]
# The same points, and a harmless one, in another encoding than their one.
NOT_CANONICAL = [number.to_bytes(32, "little") for number in (FIELD, FIELD + 1, FIELD + 9, 9 + 2**255, 2**256 - 1)]


def adverts_of(silos: int, window: Window = WINDOW, **policy) -> tuple[Federation, list[bytes]]:
    """Return a federation that advertised, and its adverts."""
    federation = Federation(silos, **policy)
    return federation, collect_adverts(federation, window)[1]


def forged(federation: Federation, adverts: list[bytes], sender: int, **fields) -> list[bytes]:
    """Return the adverts with one changed and signed again, as a colluding silo can."""
    place = MessageScope(federation.setting(WINDOW), 1)
    own = replace(Advert.read(adverts[sender - 1], place), **fields)
    told = list(adverts)
    told[sender - 1] = own.sign(place, federation.identities[sender])
    return told


def masked_round(silos: int, gone: tuple[int, ...] = (), opened: Opened | None = None, **policy) -> Round:
    """Return a round in which all but a few masked, and U3 is fixed."""
    opened = opened or open_window(Federation(silos, **policy))
    held = opened.round()
    held.mask(opened.federation.updates(), gone)
    held.close()
    return held


def signed_by(held: Round, signers, survivors=None, context: bytes | None = None) -> list[bytes]:
    """Return COMMITs signed with silos' keys, whatever the silos would say: what colluding ones can send."""
    told = survivors_digest(held.tally.survivors if survivors is None else survivors)
    identities = held.federation.identities
    return [Commit(one, context or held.context, told).sign(held.place, identities[one]) for one in signers]


# Roster and policy


def roster_with(key: bytes) -> Roster:
    return Roster("f", (Member("a", SigningKey.generate().public), Member("b", key)))


@pytest.mark.parametrize("sign", [0, 0x80])
@pytest.mark.parametrize(
    "encoded",
    [
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ],
)
def test_a_roster_key_of_small_order_is_refused(encoded: str, sign: int) -> None:
    key = bytearray.fromhex(encoded)
    key[-1] |= sign
    assert refusal(roster_with, bytes(key)) is Rule.WEAK_KEY


def test_a_roster_that_names_a_silo_or_key_twice_is_refused() -> None:
    one, other = SigningKey.generate().public, SigningKey.generate().public
    for members in ([("a", one), ("a", other)], [("a", one), ("b", one)], []):
        assert refusal(Roster, "f", tuple(Member(*member) for member in members)) is Rule.DUPLICATE


def test_a_roster_is_the_administrators() -> None:
    federation = Federation(3)
    signed = federation.roster.sign(federation.administrator)
    known = federation.administrator.public
    assert Roster.open(signed, known) == federation.roster
    stranger = SigningKey.generate()
    for given_ in (federation.roster.sign(stranger), signed[:-1], b"", signed[:63]):
        assert refusal(Roster.open, given_, known) is Rule.BAD_SIGNATURE
    for place in range(len(signed)):
        changed = bytearray(signed)
        changed[place] ^= 1
        assert refusal(Roster.open, bytes(changed), known) is Rule.BAD_SIGNATURE


def test_a_roster_has_one_encoding_even_from_the_administrator() -> None:
    federation = Federation(3)
    encoded, label = federation.roster.to_bytes(), b"fedmodel/v1/sa-roster"
    short_name = encoded.replace(b"\x0afederation", b"\x00")
    for changed in (encoded + b"\0", b"XXXX" + encoded[4:], encoded[:20], encoded[:30], encoded[:6], short_name):
        resigned = changed + federation.administrator.sign(label, changed)
        assert refusal(Roster.open, resigned, federation.administrator.public) is Rule.MALFORMED


def test_a_roster_grown_past_the_policy_is_refused() -> None:
    federation = Federation(4)
    strict = replace(federation.policy, largest_roster=3)
    assert refusal(Participant, federation.identities[1], federation.roster, strict, RUN) is Rule.ROSTER
    assert refusal(Setting, federation.roster, strict, WINDOW) is Rule.ROSTER


def test_a_silo_outside_the_roster_takes_no_part() -> None:
    federation = Federation(3)
    assert refusal(Participant, SigningKey.generate(), federation.roster, federation.policy, RUN) is Rule.UNKNOWN_SENDER


def test_a_window_larger_than_the_policys_is_refused() -> None:
    federation = Federation(3, window=2)
    assert refusal(federation.call, 1, "advert", Window(RUN, 1, 1, 3)) is Rule.ROSTER
    federation.call(1, "advert", Window(RUN, 1, 1, 2))


@pytest.mark.parametrize(
    "window", [(RUN, 0, 1, 1), (RUN, 1, 0, 1), (RUN, 1, 2**16, 1), (2**64, 1, 1, 1), (RUN, 1, 1, 0)]
)
def test_a_window_out_of_range_is_refused(window: tuple[int, int, int, int]) -> None:
    assert refusal(lambda: Window(*window)) is Rule.MALFORMED


@pytest.mark.parametrize(
    "changed", [{"n_min": 2}, {"colluding": -1}, {"window": 0}, {"largest_roster": 2}, {"bound": 0}]
)
def test_a_policy_that_protects_nobody_is_no_policy(changed: dict) -> None:
    told = {"n_min": 3, "colluding": 1, "dropping": 1, "bound": 1.0, "largest_roster": 5}
    with pytest.raises(ConfigError):
        Policy(**{**told, **changed})


# The cohort and its keys


@pytest.mark.parametrize(
    "changed",
    [
        {"n_min": 4},
        {"colluding": 0},
        {"dropping": 0},
        {"bound": 2.0},
        {"largest_roster": 9},
        {"secrecy_bits": 40},
        {"window": 3},
        {"consistency": "quorum"},
    ],
)
def test_adverts_under_another_policy_are_refused(changed: dict) -> None:
    """The server cannot talk one silo into other parameters than the others': there is no field to say them in."""
    federation, adverts = adverts_of(4)
    other = replace(federation.policy, **changed)
    lax = Participant(federation.identities[4], federation.roster, other, RUN)
    adverts[3] = lax.advert(WINDOW)
    assert refusal(federation.call, 1, "deal", adverts) is Rule.REPLAYED
    assert refusal(lax.deal, [*adverts[:3], adverts[3]]) is Rule.REPLAYED


@pytest.mark.parametrize("changed", [{"ring_bits": 16}, {"ring_bits": 24}, {"suite": Suite.POST_QUANTUM}])
def test_adverts_of_another_ring_or_suite_are_refused(changed: dict) -> None:
    federation, adverts = adverts_of(4)
    other = Participant(federation.identities[4], federation.roster, replace(federation.policy, **changed), RUN)
    adverts[3] = other.advert(WINDOW)
    assert refusal(federation.call, 1, "deal", adverts) is Rule.MALFORMED


def test_words_of_another_ring_are_refused_before_a_secret_is_used() -> None:
    opened = open_window(Federation(4))
    before = opened.federation.states[1]
    words = words_of(16, 8, 1)
    assert refusal(opened.federation.call, 1, "mask", 1, words, MODEL, RULES) is Rule.MALFORMED
    assert opened.federation.states[1] == before
    assert (words == words_of(16, 8, 1)).all()


@pytest.mark.parametrize(("silos", "colluding", "threshold"), [(4, 0, 3), (4, 1, 3), (5, 1, 4), (7, 2, 5), (3, 1, 3)])
def test_the_threshold_is_the_policys(silos: int, colluding: int, threshold: int) -> None:
    """Just `threshold` of the shares that silos hold give a secret, so no server has lowered it."""
    opened = open_window(Federation(silos, colluding=colluding, n_min=colluding + 2))
    collection = opened.collection
    shares = {}
    for number in opened.federation.numbers:
        window = opened.federation.silo(number)._state.window
        shares[number] = int(window.rounds["1"].held["1"][0], 16)

    def gives(points) -> bool:
        found = shamir.combine({one: shares[one] for one in points}, shamir.lagrange_at_zero(points))
        return commitment(found, collection.setting.base, 1, 1) == collection.adverts[1].commitments[0]

    assert all(gives(points) for points in itertools.combinations(shares, threshold))
    assert not any(gives(points) for points in itertools.combinations(shares, threshold - 1))


def test_a_cohort_below_n_min_is_refused() -> None:
    federation, adverts = adverts_of(5, n_min=4)
    assert refusal(federation.call, 1, "deal", adverts[:3]) is Rule.COHORT
    federation.call(1, "deal", adverts[:4])


def test_a_cohort_of_two_is_refused_whatever_the_policy() -> None:
    federation, adverts = adverts_of(3, n_min=2, colluding=0)
    assert refusal(federation.call, 1, "deal", adverts[:2]) is Rule.COHORT


def test_a_cohort_larger_than_the_roster_is_refused() -> None:
    federation, adverts = adverts_of(4)
    assert refusal(federation.call, 1, "deal", [*adverts, adverts[0]]) is Rule.COHORT
    assert refusal(federation.policy.topology, 5) is Rule.COHORT


def test_an_advert_twice_is_refused() -> None:
    federation, adverts = adverts_of(4)
    assert refusal(federation.call, 1, "deal", [*adverts[:3], adverts[1]]) is Rule.DUPLICATE


def test_a_second_dealing_is_refused() -> None:
    """Shares of one secret under two polynomials, or in two cohorts, would be two answers."""
    federation, adverts = adverts_of(4)
    federation.call(1, "deal", adverts)
    assert refusal(federation.call, 1, "deal", adverts) is Rule.REPEATED
    assert refusal(federation.call, 1, "deal", adverts[:3]) is Rule.REPEATED


@pytest.mark.parametrize("suite", SUITES)
def test_a_swapped_key_is_refused(suite: Suite) -> None:
    """The server puts in a key of its own, signed by a silo that works with it; or by nobody."""
    federation, adverts = adverts_of(4, suite=suite)
    other, others = adverts_of(4, suite=suite)
    place = MessageScope(federation.setting(WINDOW), 1)
    stolen = Advert.read(others[1], MessageScope(other.setting(WINDOW), 1)).mask_keys
    own = replace(Advert.read(adverts[1], place), mask_keys=stolen)
    for signer in (federation.identities[3], SigningKey.generate()):
        told = [adverts[0], own.sign(place, signer), *adverts[2:]]
        assert refusal(federation.call, 1, "deal", told) is Rule.BAD_SIGNATURE
    swapped = adverts[1].replace(Advert.read(adverts[1], place).mask_keys[0], stolen[0])
    assert refusal(federation.call, 1, "deal", [adverts[0], swapped, *adverts[2:]]) is Rule.BAD_SIGNATURE


def test_an_outsiders_advert_is_refused() -> None:
    federation, adverts = adverts_of(4)
    place = MessageScope(federation.setting(WINDOW), 1)
    for number in (0, 5, 2**32 - 1):
        outsider = replace(Advert.read(adverts[3], place), sender=number).sign(place, SigningKey.generate())
        assert refusal(federation.call, 1, "deal", [*adverts[:3], outsider]) is Rule.UNKNOWN_SENDER


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("mine", ["transport", "mask_keys"])
@pytest.mark.parametrize("theirs", ["transport", "mask_keys"])
def test_an_echoed_key_is_refused(suite: Suite, mine: str, theirs: str) -> None:
    """A colluding silo with our own key: with X25519 the secret would be our key's square, with HPKE our own mail."""
    federation, adverts = adverts_of(4, suite=suite)
    victim = Advert.read(adverts[0], MessageScope(federation.setting(WINDOW), 1))
    key = victim.transport if mine == "transport" else victim.mask_keys[0]
    told = forged(federation, adverts, 3, **{theirs: key if theirs == "transport" else (key,)})
    assert refusal(federation.call, 1, "deal", told) is Rule.ECHOED_KEY
    # To the others it is two silos with one key, whatever the order.
    assert refusal(federation.call, 2, "deal", told) is Rule.DUPLICATE
    assert refusal(federation.call, 2, "deal", told[::-1]) is Rule.DUPLICATE
    assert refusal(federation.call, 1, "deal", told[::-1]) is Rule.ECHOED_KEY


def test_a_key_of_another_round_echoed_is_refused() -> None:
    window = Window(RUN, 1, 1, 3)
    federation, adverts = adverts_of(4, window)
    place = MessageScope(federation.setting(window), 1)
    victim, own = Advert.read(adverts[0], place), Advert.read(adverts[2], place)
    keys = (victim.mask_keys[2], *own.mask_keys[1:])
    adverts[2] = replace(own, mask_keys=keys).sign(place, federation.identities[3])
    assert refusal(federation.call, 1, "deal", adverts) is Rule.ECHOED_KEY


def test_one_key_twice_in_an_advert_is_refused() -> None:
    federation, adverts = adverts_of(4)
    own = Advert.read(adverts[2], MessageScope(federation.setting(WINDOW), 1))
    told = forged(federation, adverts, 3, mask_keys=(own.transport,))
    assert refusal(federation.call, 1, "deal", told) is Rule.DUPLICATE


@pytest.mark.parametrize("point", LOW_ORDER + NOT_CANONICAL, ids=bytes.hex)
@pytest.mark.parametrize("suite", SUITES)
def test_a_weak_mask_key_is_refused(suite: Suite, point: bytes) -> None:
    """With a point of small order the pair's secret would be zero, and the server would know the mask."""
    federation, adverts = adverts_of(4, suite=suite)
    own = Advert.read(adverts[2], MessageScope(federation.setting(WINDOW), 1)).mask_keys[0]
    told = forged(federation, adverts, 3, mask_keys=(own[:-32] + point,))
    assert refusal(federation.call, 1, "deal", told) is Rule.WEAK_KEY


@pytest.mark.parametrize("point", NOT_CANONICAL, ids=bytes.hex)
def test_a_transport_key_in_another_encoding_is_refused(point: bytes) -> None:
    federation, adverts = adverts_of(4)
    assert refusal(federation.call, 1, "deal", forged(federation, adverts, 3, transport=point)) is Rule.WEAK_KEY


@pytest.mark.parametrize("point", LOW_ORDER, ids=bytes.hex)
@pytest.mark.parametrize("suite", SUITES)
def test_shares_are_not_sealed_to_a_transport_key_of_small_order(suite: Suite, point: bytes) -> None:
    federation, adverts = adverts_of(4, suite=suite)
    own = Advert.read(adverts[2], MessageScope(federation.setting(WINDOW), 1)).transport
    with pytest.raises(FedmodelError):
        federation.call(1, "deal", forged(federation, adverts, 3, transport=own[:-32] + point))


def test_a_cohort_without_our_own_advert_is_refused() -> None:
    federation, adverts = adverts_of(5)
    assert refusal(federation.call, 1, "deal", adverts[1:]) is Rule.OWN_ADVERT


def test_our_own_advert_changed_is_refused() -> None:
    """Even where our own key signed it: an advert whose secrets are gone."""
    federation, adverts = adverts_of(4)
    earlier = Participant(federation.identities[1], federation.roster, federation.policy, RUN).advert(WINDOW)
    assert refusal(federation.call, 1, "deal", [earlier, *adverts[1:]]) is Rule.OWN_ADVERT


def test_stages_out_of_order_are_refused() -> None:
    federation, adverts = adverts_of(4)
    fresh = Federation(4)
    told = bytes(32), [1, 2, 3]
    assert refusal(fresh.call, 1, "deal", adverts) is Rule.OUT_OF_ORDER
    assert refusal(fresh.call, 1, "receive", []) is Rule.OUT_OF_ORDER
    assert refusal(fresh.call, 1, "mask", 1, words_of(32, 8, 1), MODEL, RULES) is Rule.OUT_OF_ORDER
    assert refusal(federation.call, 1, "receive", []) is Rule.OUT_OF_ORDER
    federation.call(1, "deal", adverts)
    assert refusal(federation.call, 1, "mask", 1, words_of(32, 8, 1), MODEL, RULES) is Rule.OUT_OF_ORDER
    lax = Federation(4, consistency="quorum")
    assert refusal(lax.call, 4, "reveal", 1, 1, *told, []) is Rule.OUT_OF_ORDER
    opened = open_window(Federation(4))
    assert refusal(opened.federation.call, 1, "receive", opened.collection.shares_for(1)) is Rule.OUT_OF_ORDER
    assert refusal(opened.federation.call, 1, "mask", 2, words_of(32, 8, 1), MODEL, RULES) is Rule.OUT_OF_ORDER


# Shares


def dealt(silos: int, window: Window = WINDOW, **policy) -> tuple[Federation, dict[int, dict[int, bytes]]]:
    """Return a federation in which all dealt, and the SHAREs by sender and receiver."""
    federation, adverts = adverts_of(silos, window, **policy)
    place = MessageScope(federation.setting(window), window.first)
    rows = {}
    for number in federation.numbers:
        shares = federation.call(number, "deal", adverts)
        rows[number] = {Share.read(data, place).receiver: data for data in shares}
    return federation, rows


def received(federation: Federation, rows, number: int, **changed: bytes) -> tuple[dict[int, str], list[int]]:
    """Deliver to a silo all that is for it, some of it changed; return its faults, and whom it will mask with."""
    shares = [rows[sender][number] for sender in rows if sender != number]
    shares[0] = changed.get("first", shares[0])
    faults = federation.call(number, "receive", shares)
    return faults, federation.silo(number)._state.window.rounds["1"].masked_with


@pytest.mark.parametrize("suite", SUITES)
def test_a_share_for_another_counts_as_not_dealt(suite: Suite) -> None:
    federation, rows = dealt(5, suite=suite)
    faults, masked_with = received(federation, rows, 1, first=rows[2][3])
    assert list(faults) == [0]
    assert Rule.SHARES.value in faults[0]  # before anything is opened
    assert masked_with == [3, 4, 5]


def test_an_envelope_moved_to_another_pair_does_not_open() -> None:
    """A colluding silo passes on, as its own, what an honest one sealed to the victim; or to somebody else."""
    federation, rows = dealt(5)
    place = MessageScope(federation.setting(WINDOW), 1)
    own = Share.read(rows[2][1], place)
    for other in (rows[3][1], rows[2][3]):
        moved = replace(own, envelope=Share.read(other, place).envelope).sign(place, federation.identities[2])
        state = federation.states[1]
        faults, masked_with = received(federation, rows, 1, first=moved)
        assert list(faults) == [0]
        assert masked_with == [3, 4, 5]
        federation.states[1] = state


def test_a_share_of_another_cohort_counts_as_not_dealt() -> None:
    federation, rows = dealt(5)
    place = MessageScope(federation.setting(WINDOW), 1)
    other = replace(Share.read(rows[2][1], place), cohort=bytes(32)).sign(place, federation.identities[2])
    faults, masked_with = received(federation, rows, 1, first=other)
    assert Rule.SHARES.value in faults[0]
    assert masked_with == [3, 4, 5]


def test_a_second_share_of_one_dealer_counts_as_not_there() -> None:
    """So no silo holds two shares of one secret, whichever of them were right."""
    federation, rows = dealt(5)
    shares = [rows[sender][1] for sender in (2, 3, 4, 2)]
    assert list(federation.call(1, "receive", shares)) == [3]


def test_more_shares_than_neighbours_are_refused_before_any_is_read() -> None:
    federation, rows = dealt(5)
    shares = [rows[sender][1] for sender in (2, 3, 4, 5, 2)]  # of which four would do
    assert refusal(federation.call, 1, "receive", shares) is Rule.SHARES


def test_too_few_dealers_are_refused() -> None:
    federation, rows = dealt(5)  # of which a threshold of 4, the silo itself among them
    assert refusal(federation.call, 1, "receive", [rows[2][1], rows[3][1]]) is Rule.SHARES
    assert federation.call(1, "receive", [rows[2][1], rows[3][1], rows[4][1]]) == {}


@pytest.mark.parametrize("cut", [0, 31, 64, 95, -1, -64])
def test_a_cut_share_counts_as_not_dealt(cut: int) -> None:
    federation, rows = dealt(5)
    faults, masked_with = received(federation, rows, 1, first=rows[2][1][:cut])
    assert list(faults) == [0]
    assert masked_with == [3, 4, 5]


# Another model, or other rules


@pytest.mark.usefixtures("same_bytes")
@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("told", [(b"x" * 32, RULES), (MODEL, b"x" * 32)])
def test_another_model_to_one_silo_gives_noise(suite: Suite, told: tuple[bytes, bytes]) -> None:
    """Its masks do not cancel, and it signs no list of the others: the server has its self mask and still nothing."""
    opened = open_window(Federation(4, suite=suite))
    federation, held = opened.federation, opened.round()
    zeros = np.zeros(8192, "<u4")
    for number in (1, 2, 3):
        held.mask_one(number, zeros)
    held.mask_one(4, zeros, *told)
    everybody = [1, 2, 3, 4]
    held.close()
    assert held.tally.survivors == (1, 2, 3)
    assert held.tally.blamed.keys() == {4}

    commits = [held.commit_one(number, everybody) for number in (1, 2, 3)]
    assert refusal(held.commit_one, 4, everybody) is Rule.CONTEXT
    assert refusal(held.reveal_one, 4, everybody, commits) is Rule.CONTEXT
    reveals = [Reveal.read(held.reveal_one(number, everybody, commits), held.place) for number in (1, 2, 3)]
    total = summed(held.words.values())
    for dealer in everybody:
        shares = {reveal.sender: reveal.shares[dealer][1] for reveal in reveals}
        b = shamir.combine(shares, shamir.lagrange_at_zero(list(shares)))
        context = held.context
        if dealer == 4:
            collection = opened.collection
            context = collection.setting.context(1, collection.cohort_digest, *told)
        subtract_mask(total, self_key(b, context, dealer))
    assert is_uniform(total) > 1e-6
    assert (total == 0).mean() < 0.01  # the truth is zero everywhere
    assert federation.silo(4)._state.signed is None


def test_the_same_computation_gives_the_sum_where_all_got_one_model() -> None:
    """So that the noise above is the other model's doing."""
    _, total = run_round(open_window(Federation(4)), updates=dict.fromkeys(range(1, 5), np.zeros(64, "<u4")))
    assert (total == 0).all()


# Survivor lists


@pytest.mark.parametrize(
    "survivors",
    [
        [1, 2],
        [],
        [1, 2, 2, 3],
        [1, 2, 3, 3],
        [3, 2, 1],
        [1, 3, 2, 4],
        [0, 1, 2, 3],
        [1, 2, 3, 6],
        [1, 2, 3, 5],
    ],
    ids=str,
)
def test_a_survivor_list_that_is_no_list_of_enough_silos_is_refused(survivors: list[int]) -> None:
    """Too few, one both there twice, out of order, outside the roster, outside the cohort (silo 5)."""
    opened = open_window(Federation(5), gone={Kind.ADVERT: [5]})
    held = masked_round(5, opened=opened)
    commits = signed_by(held, (1, 2, 3, 4, 5), survivors)
    for number in (1, 4):
        assert refusal(held.commit_one, number, survivors) is Rule.SURVIVORS
        assert refusal(held.reveal_one, number, survivors, commits) is Rule.SURVIVORS


def test_a_list_with_a_silo_twice_cannot_even_be_sent() -> None:
    for numbers in ([1, 1], [2, 1], [0, 1], [1, 6]):
        packed = len(numbers).to_bytes(4, "big") + b"".join(one.to_bytes(4, "big") for one in numbers)
        assert refusal(read_numbers, packed, 5) is Rule.MALFORMED


def test_n_min_is_the_policys_at_commit_and_at_reveal() -> None:
    held = masked_round(5, n_min=4)
    few, enough = [1, 2, 3], [1, 2, 3, 4]
    assert refusal(held.commit_one, 5, few) is Rule.SURVIVORS
    assert refusal(held.reveal_one, 5, few, signed_by(held, (1, 2, 3, 4), few)) is Rule.SURVIVORS
    held.commit_one(5, enough)
    held.reveal_one(5, enough, signed_by(held, (1, 2, 3, 4), enough))


def test_a_silo_that_sent_nothing_is_no_survivor() -> None:
    held = masked_round(5, gone=(1,))
    everybody = [1, 2, 3, 4, 5]
    assert refusal(held.commit_one, 1, everybody) is Rule.SURVIVORS
    assert refusal(held.reveal_one, 1, everybody, signed_by(held, everybody, everybody)) is Rule.SURVIVORS


def test_a_witness_is_no_survivor() -> None:
    opened = open_window(Federation(5), gone={Kind.ADVERT: [5]})
    held = masked_round(5, opened=opened)
    assert refusal(held.commit_one, 5, [1, 2, 5]) is Rule.SURVIVORS
    held.commit_one(5)


@pytest.mark.parametrize("context", [b"", b"x" * 31, b"x" * 33])
def test_a_context_of_another_length_is_refused(context: bytes) -> None:
    held = masked_round(4, gone=(4,))
    setting = (held.number, held.attempt, context, [1, 2, 3])
    assert refusal(held.federation.call, 4, "commit", *setting) is Rule.SURVIVORS


def test_a_survivor_that_was_not_masked_with_is_refused() -> None:
    """Silo 5 sealed nothing that silo 1 could open, and the server takes both their updates all the same."""
    federation = Federation(5)

    def spoil(data: bytes) -> bytes:
        place = MessageScope(federation.setting(WINDOW), 1)
        share = Share.read(data, place)
        spoiled = replace(share, envelope=b"x" * 80).sign(place, federation.identities[5])
        return spoiled if share.receiver == 1 else data

    def tamper(kind: Kind, sender: int, message):
        return [spoil(data) for data in message] if (kind, sender) == (Kind.SHARE, 5) else message

    opened = open_window(federation, tamper=tamper)
    assert list(opened.faults[1]) == [3]
    held = opened.round()
    held.mask(federation.updates())
    everybody, context = [1, 2, 3, 4, 5], held_context(held)
    commits = [held.commit_one(number, everybody, context) for number in (2, 3, 4, 5)]
    assert len(commits) == federation.quorum()
    assert refusal(held.commit_one, 1, everybody, context) is Rule.NOT_MASKED_WITH
    assert refusal(held.reveal_one, 1, everybody, commits, context) is Rule.NOT_MASKED_WITH


def held_context(held: Round) -> bytes:
    """Return the context that everybody masked in, where the server has not closed the round."""
    collection = held.opened.collection
    return collection.setting.context(held.number, collection.cohort_digest, MODEL, RULES)


# Two faces


def test_a_second_commit_is_refused_on_any_list() -> None:
    held = masked_round(5)
    held.commit_one(1)
    for survivors in (held.tally.survivors, [1, 2, 3], [2, 3, 4, 5]):
        assert refusal(held.commit_one, 1, survivors) is Rule.TWO_FACED


def test_no_second_list_finds_a_quorum() -> None:
    """Five silos, of which one signs whatever is asked: each list gets two honest signatures, and neither four."""
    held = masked_round(5)
    lists = {1: [1, 2, 3, 4], 2: [1, 2, 3, 4], 3: [1, 3, 4, 5], 4: [1, 3, 4, 5]}
    commits = {number: held.commit_one(number, survivors) for number, survivors in lists.items()}
    for number, survivors in lists.items():
        fitting = [commits[one] for one in lists if lists[one] == survivors]
        told = [*fitting, *signed_by(held, [5], survivors)]
        assert refusal(held.reveal_one, number, survivors, told) is Rule.QUORUM
        assert refusal(held.reveal_one, number, survivors, told * 4) is Rule.QUORUM
        assert refusal(held.reveal_one, number, survivors, list(commits.values())) is Rule.TWO_FACED


def test_a_reveal_on_another_list_than_the_one_signed_is_refused() -> None:
    """Even where a quorum signed the other, as it may where more collude than were told of."""
    held = masked_round(5)
    held.commit_one(1)
    other = [1, 2, 3, 4]
    assert refusal(held.reveal_one, 1, other, signed_by(held, (2, 3, 4, 5), other)) is Rule.TWO_FACED


def test_a_silo_that_signed_nothing_reveals_for_a_quorum_alone() -> None:
    held = masked_round(5)
    commits = [held.commit_one(number) for number in (1, 2, 3, 4)]
    for few in ([], commits[:3], [commits[0]] * 4, [*commits[:3], commits[0]]):
        assert refusal(held.reveal_one, 5, commits=few) is Rule.QUORUM
    held.reveal_one(5, commits=commits[::-1])


def test_the_same_commits_are_read_once_whichever_silos_are_shown_them_and_any_others_anew() -> None:
    held = masked_round(5)
    commits = [held.commit_one(number) for number in (1, 2, 3, 4, 5)]
    with mock.patch.object(Commit, "read", side_effect=Commit.read) as read:
        held.reveal_one(1, commits=commits)
        before = read.call_count
        held.reveal_one(2, commits=commits)
        assert read.call_count == before > 0
        assert refusal(held.reveal_one, 3, commits=commits[:3]) is Rule.QUORUM
        flipped = commits[0][:-1] + bytes([commits[0][-1] ^ 1])
        for _ in range(2):
            assert refusal(held.reveal_one, 3, commits=[flipped, *commits[1:]]) is Rule.BAD_SIGNATURE
        other = signed_by(held, (2, 3, 4, 5), [1, 2, 3, 4])
        assert refusal(held.reveal_one, 3, [1, 2, 3, 4], commits) is Rule.TWO_FACED
        assert refusal(held.reveal_one, 3, commits=other) is Rule.TWO_FACED
        held.reveal_one(3, commits=commits)


def test_commits_on_another_list_or_context_do_not_count() -> None:
    held = masked_round(5)
    right = signed_by(held, (1, 2, 3))
    for other in (signed_by(held, [4], [1, 2, 3, 4]), signed_by(held, [4], context=bytes(32))):
        assert refusal(held.reveal_one, 5, commits=right + other) is Rule.TWO_FACED
    flipped = right[0][:-1] + bytes([right[0][-1] ^ 1])
    assert refusal(held.reveal_one, 5, commits=[*right, flipped]) is Rule.BAD_SIGNATURE
    outsider = Commit(6, held.context, held.tally.told).sign(held.place, SigningKey.generate())
    assert refusal(held.reveal_one, 5, commits=[*right, outsider]) is Rule.UNKNOWN_SENDER


def test_the_quorum_is_of_the_whole_roster() -> None:
    """Of six, three take part; all three signatures are not enough, and a witness's is."""
    opened = open_window(Federation(6, colluding=0), gone={Kind.ADVERT: [4, 5, 6]})
    held = masked_round(6, opened=opened)
    assert opened.federation.quorum() == 4
    for number in (1, 2, 3):
        held.tally.add_commit(held.commit_one(number))
    with pytest.raises(DropoutError):
        held.tally.commits()
    three = signed_by(held, (1, 2, 3))
    assert refusal(held.reveal_one, 1, commits=three) is Rule.QUORUM
    held.tally.add_commit(held.commit_one(5))
    for number in (1, 2, 3):
        held.tally.add_reveal(held.reveal_one(number))
    assert (held.tally.total() == summed([opened.federation.updates()[one] for one in (1, 2, 3)])).all()


def test_two_cohorts_of_one_roster_do_not_finish() -> None:
    """The server tells each half that the other is away: half a roster is no quorum, and witnesses sign once."""
    federation = Federation(7, colluding=0)
    halves = ([1, 2, 3], [4, 5, 6])
    rounds = [
        masked_round(7, opened=open_window(federation, gone={Kind.ADVERT: set(federation.numbers) - set(half)}))
        for half in halves
    ]
    for held, half in zip(rounds, halves, strict=True):
        commits = [held.commit_one(number) for number in half]
        assert refusal(held.reveal_one, half[0], commits=commits) is Rule.QUORUM
        # The other half has a part in a round of this number, so it is no witness of this one.
        assert all(refusal(held.commit_one, one) in (Rule.SURVIVORS, Rule.TWO_FACED) for one in set(range(1, 7)))
    rounds[0].commit_one(7)
    assert refusal(rounds[1].commit_one, 7) is Rule.TWO_FACED


def test_a_consistency_of_quorum_needs_no_commits() -> None:
    opened = open_window(Federation(4, consistency="quorum"))
    held = opened.round()
    held.mask(opened.federation.updates())
    held.close()
    held.reveal()
    assert (held.tally.total() == summed(opened.federation.updates().values())).all()


# Twice


@pytest.mark.parametrize("suite", SUITES)
def test_a_second_mask_is_refused_and_leaves_the_words_alone(suite: Suite) -> None:
    """Two updates under one mask would give their difference."""
    held = masked_round(4, suite=suite)
    words = words_of(32, 16, 99)
    for model in (MODEL, b"x" * 32):
        assert refusal(held.federation.call, 1, "mask", 1, words, model, RULES) is Rule.REPEATED
        assert refusal(held.federation.silo(1).check_can_mask, 1) is Rule.REPEATED
    assert (words == words_of(32, 16, 99)).all()


def test_a_mask_after_commit_or_reveal_is_refused() -> None:
    """Silo 5 is out of the sum, and its root may be known: what it masked now would be bare but for b."""
    for revealed in (False, True):
        held = masked_round(5, gone=(5,))
        if revealed:
            held.reveal_one(5, commits=signed_by(held, (1, 2, 3, 4)))
        else:
            held.commit_one(5)
        words = words_of(32, 16, 99)
        assert refusal(held.federation.call, 5, "mask", 1, words, MODEL, RULES) is Rule.REPEATED
        assert (words == words_of(32, 16, 99)).all()


def test_a_second_reveal_is_refused_on_the_same_and_on_another_list() -> None:
    held = masked_round(5)
    held.commit()
    held.reveal_one(1)
    assert refusal(held.reveal_one, 1) is Rule.REPEATED
    other = [1, 2, 3, 4]
    assert refusal(held.reveal_one, 1, other, signed_by(held, (2, 3, 4, 5), other)) is Rule.REPEATED
    assert refusal(held.commit_one, 1, other) is Rule.TWO_FACED


def test_a_commit_after_a_reveal_is_refused_even_if_none_was_signed() -> None:
    held = masked_round(5)
    held.reveal_one(1, commits=signed_by(held, (2, 3, 4, 5)))
    assert refusal(held.commit_one, 1) is Rule.TWO_FACED


# Another round, run, attempt


def test_a_window_that_is_not_new_is_refused() -> None:
    federation = Federation(4)
    federation.call(1, "advert", Window(RUN, 3, 2, 1))
    lower = (Window(RUN, 3, 2, 2), Window(RUN, 3, 1, 1), Window(RUN, 2, 9, 1), Window(RUN + 1, 4, 1, 1))
    for window in lower:
        assert refusal(federation.call, 1, "advert", window) is Rule.REPLAYED
    federation.call(1, "advert", Window(RUN, 3, 3, 1))
    federation.call(1, "advert", Window(RUN, 4, 1, 1))


def test_a_window_asked_for_twice_has_one_advert_and_none_once_shares_were_dealt() -> None:
    federation, adverts = adverts_of(4)
    assert federation.call(1, "advert", WINDOW) == adverts[0]
    federation.call(1, "deal", adverts)
    assert refusal(federation.call, 1, "advert", WINDOW) is Rule.REPLAYED


def replayed_adverts(federation: Federation) -> dict[str, bytes]:
    """Return adverts that silo 4 signed somewhere else."""
    identity, roster, policy = federation.identities[4], federation.roster, federation.policy
    grown = Roster("federation", (*roster.members, Member("late", SigningKey.generate().public)))
    wide = replace(policy, largest_roster=5)
    return {
        "run": Participant(identity, roster, policy, RUN + 1).advert(Window(RUN + 1, 1, 1, 1)),
        "round": Participant(identity, roster, policy, RUN).advert(Window(RUN, 2, 1, 1)),
        "attempt": Participant(identity, roster, policy, RUN).advert(Window(RUN, 1, 2, 1)),
        "roster": Participant(identity, grown, wide, RUN).advert(WINDOW),
        "policy": Participant(identity, roster, wide, RUN).advert(WINDOW),
    }


@pytest.mark.parametrize("where", ["run", "round", "attempt", "roster", "policy"])
def test_an_advert_from_elsewhere_is_refused(where: str) -> None:
    federation, adverts = adverts_of(4)
    adverts[3] = replayed_adverts(federation)[where]
    # A message of another roster does not even verify under the same key.
    rule = Rule.BAD_SIGNATURE if where == "roster" else Rule.REPLAYED
    assert refusal(federation.call, 1, "deal", adverts) is rule


def test_an_advert_for_another_count_of_rounds_is_refused() -> None:
    federation, adverts = adverts_of(4)
    adverts[3] = Participant(federation.identities[4], federation.roster, federation.policy, RUN).advert(
        Window(RUN, 1, 1, 2)
    )
    assert refusal(federation.call, 1, "deal", adverts) is Rule.MALFORMED


@pytest.mark.parametrize("window", [Window(RUN, 1, 2, 1), Window(RUN, 2, 1, 1)], ids=["attempt", "round"])
def test_a_share_from_another_window_counts_as_not_dealt(window: Window) -> None:
    federation, rows = dealt(5)
    adverts = collect_adverts(federation, window)[1]
    place = MessageScope(federation.setting(window), window.first)
    fresh = [
        next(data for data in federation.call(number, "deal", adverts) if Share.read(data, place).receiver == 1)
        for number in (2, 3, 4, 5)
    ]
    federation.call(1, "deal", adverts)
    assert refusal(Share.read, rows[2][1], place) is Rule.REPLAYED
    assert list(federation.call(1, "receive", [rows[2][1], *fresh[1:]])) == [0]
    assert federation.silo(1)._state.window.rounds[str(window.first)].masked_with == [3, 4, 5]


def elsewhere(held: Round, run: int = RUN, first: int = 1, attempt: int = 1) -> MessageScope:
    return MessageScope(held.federation.setting(Window(run, first, attempt, 1)), first)


@pytest.mark.parametrize("where", [{"run": RUN + 1}, {"first": 2}, {"attempt": 2}], ids=str)
def test_a_commit_from_elsewhere_is_refused(where: dict[str, int]) -> None:
    held = masked_round(5)
    right = signed_by(held, (1, 2, 3))
    place = elsewhere(held, **where)
    other = Commit(4, held.context, held.tally.told).sign(place, held.federation.identities[4])
    assert refusal(held.reveal_one, 5, commits=[*right, other]) is Rule.REPLAYED


def test_a_commit_under_another_roster_or_policy_is_on_another_context() -> None:
    """Neither is in a COMMIT's header; both are in ctx."""
    held = masked_round(5)
    for changed in ({"bound": 2.0}, {"n_min": 4}):
        other = replace(held.federation.policy, **changed)
        setting = Setting(held.federation.roster, other, WINDOW)
        context = setting.context(1, held.opened.collection.cohort_digest, MODEL, RULES)
        assert context != held.context
        signed = signed_by(held, (1, 2, 3, 4), context=context)
        assert refusal(held.reveal_one, 5, commits=signed) is Rule.TWO_FACED
        assert refusal(held.commit_one, 5, context=context) is Rule.CONTEXT


def test_rounds_and_attempts_only_rise() -> None:
    opened = open_window(Federation(5), Window(RUN, 1, 1, 3))
    federation = opened.federation
    held = masked_round(5, opened=opened)
    commits = signed_by(held, (1, 2, 3, 4))
    second = opened.round(2)
    second.mask_one(1, federation.updates()[1])
    assert refusal(held.commit_one, 1) is Rule.REPLAYED
    assert refusal(held.reveal_one, 1, commits=commits) is Rule.REPLAYED
    assert refusal(federation.call, 1, "mask", 1, words_of(32, 8, 1), MODEL, RULES) is Rule.REPLAYED
    # A witness's signature in a later round closes the earlier ones as well.
    federation.call(2, "commit", 3, 1, bytes(32), [1, 3, 4])
    for stage in (held.commit_one, second.commit_one):
        assert refusal(stage, 2) is Rule.REPLAYED
    # So does a higher attempt at the same round.
    federation.call(3, "commit", 1, 2, bytes(32), [1, 2, 4])
    assert refusal(held.commit_one, 3) is Rule.REPLAYED
    assert refusal(held.reveal_one, 3, commits=commits) is Rule.REPLAYED


def test_shares_of_one_attempt_are_not_given_in_another() -> None:
    held = masked_round(5, gone=(5,))
    place = elsewhere(held, attempt=2)
    survivors = held.tally.survivors
    told = [
        Commit(one, held.context, held.tally.told).sign(place, held.federation.identities[one]) for one in survivors
    ]
    assert refusal(held.federation.call, 5, "reveal", 1, 2, held.context, survivors, told) is Rule.OUT_OF_ORDER


# Restarts


@pytest.mark.parametrize("stage", ["commit", "reveal", "deal", "advert", "receive"])
def test_what_is_refused_leaves_the_state_as_it_was(stage: str) -> None:
    """Also where a round is named that no other stage has come to: it is not entered."""
    federation, adverts = adverts_of(5, Window(RUN, 1, 1, 2))
    silo = federation.silo(1)
    before = silo.state()
    asked = {
        "commit": (7, 1, bytes(32), []),
        "reveal": (7, 1, bytes(32), [2, 3, 4], []),
        "deal": (adverts[1:],),
        "advert": (Window(RUN, 1, 1, 1),),
        "receive": ([],),
    }
    refusal(getattr(silo, stage), *asked[stage])
    assert silo.state() == before


def test_two_lists_never_open_one_round_by_way_of_another() -> None:
    """Silos that sign round 2's list before they have its shares, and then give their shares under round 3's.

    Were what they hold filed by place and not by round, they would give shares of round 2 under the list of round 3:
    the victim's `b` from one list, the roots of all that it masked with from the other.
    """
    federation = Federation(8, colluding=0)
    window = Window(RUN, 1, 1, 3)
    collection, adverts, _ = collect_adverts(federation, window)
    threshold, setting = collection.topology.threshold, federation.setting(window)
    for number in federation.numbers:
        collection.add_shares(federation.call(number, "deal", adverts))
    early, victim, rest = (1, 2, 3, 4, 5), 6, (6, 7, 8)
    assert len(early) == threshold
    contexts = {r: setting.context(r, collection.cohort_digest, MODEL, RULES) for r in (2, 3)}
    signed = [federation.call(number, "commit", 2, 1, contexts[2], rest) for number in early]
    for number in federation.numbers:
        shares = collection.shares_for(number)
        if number == victim:
            shares = [data for data in shares if Share.read(data, MessageScope(setting, 1)).sender not in (1, 2)]
        federation.call(number, "receive", shares)
    updates = federation.updates()
    for number in rest:
        federation.call(number, "mask", 2, updates[number].copy(), MODEL, RULES)
    given = {2: [federation.call(number, "reveal", 2, 1, contexts[2], rest, signed) for number in rest]}
    for number in (1, 2):
        federation.call(number, "mask", 3, updates[number].copy(), MODEL, RULES)
    third = (1, 2, victim)
    signed = [federation.call(number, "commit", 3, 1, contexts[3], third) for number in early]
    given[3] = [federation.call(number, "reveal", 3, 1, contexts[3], third, signed) for number in early]

    of_b: dict[int, int] = {}
    for round_number, messages in given.items():
        for message in messages:
            reveal = Reveal.read(message, MessageScope(setting, round_number))
            if victim in reveal.shares and reveal.shares[victim][0] is Secret.B:
                of_b[reveal.sender] = reveal.shares[victim][1]
    assert len(of_b) >= threshold  # enough of them, if they were of one round
    committed = set(collection.adverts[victim].commitments)
    for points in itertools.combinations(sorted(of_b), threshold):
        found = shamir.combine({point: of_b[point] for point in points}, shamir.lagrange_at_zero(points))
        assert not {commitment(found, setting.base, r, victim) for r in window.rounds} & committed


def test_without_commits_a_two_faced_server_opens_a_single_update() -> None:
    """What `consistency = "quorum"` gives up, as the specification says: each silo is shown a list of its own."""
    federation = Federation(10, colluding=0, consistency="quorum")
    held = open_window(federation).round()
    updates = federation.updates()
    held.mask(updates)
    context, victim = held_context(held), 1
    shares: dict[tuple[Secret, int], dict[int, int]] = {}
    for holder in federation.numbers:
        others = {holder, holder % 10 + 1} | {1: {3}, 10: {2}}.get(holder, set())
        message = held.reveal_one(holder, sorted({victim} | others), [], context)
        for dealer, (secret, share) in Reveal.read(message, held.place).shares.items():
            shares.setdefault((secret, dealer), {})[holder] = share
    setting, adverts = held.opened.collection.setting, held.opened.collection.adverts

    def brought_back(secret: Secret, dealer: int) -> int:
        points = sorted(shares[secret, dealer])[: held.opened.collection.topology.threshold]
        chosen = {point: shares[secret, dealer][point] for point in points}
        return shamir.combine(chosen, shamir.lagrange_at_zero(points))

    masks = [(self_key(brought_back(Secret.B, victim), context, victim), -1)]
    for peer in range(2, 11):
        key = MaskKey(federation.policy.suite, brought_back(Secret.ROOT, peer), setting.base, 1, peer)
        agreed = key.agree(victim, adverts[victim].mask_keys[0], b"")
        masks.append((pair_key(agreed, context, victim, peer), -1))
    opened = held.words[victim].copy()
    apply_masks(opened, masks)
    assert np.array_equal(opened, updates[victim])


@pytest.mark.parametrize("acted", [False, True])
def test_shares_received_after_a_later_round_began_are_of_their_own_rounds(acted: bool) -> None:
    federation = Federation(5)
    window = Window(RUN, 1, 1, 3)
    collection, adverts, _ = collect_adverts(federation, window)
    for number in federation.numbers:
        collection.add_shares(federation.call(number, "deal", adverts))
    for number in federation.numbers:
        if acted and number == 1:
            federation.call(1, "commit", 2, 1, bytes(32), [2, 3, 4])  # as a witness: it has no part in round 2 yet
        assert federation.call(number, "receive", collection.shares_for(number)) == {}
    held, total = run_round(Opened(federation, collection), 3)
    assert np.array_equal(total, summed(federation.updates().values()))
    assert held.tally.blamed == {}


def test_a_window_of_which_a_round_is_past_is_not_dealt() -> None:
    federation, adverts = adverts_of(5, Window(RUN, 1, 1, 2))
    federation.call(1, "commit", 2, 1, bytes(32), [2, 3, 4])
    assert refusal(federation.call, 1, "deal", adverts) is Rule.REPLAYED


def test_a_window_whose_rounds_are_all_past_is_forgotten_with_its_transport_secret() -> None:
    federation, adverts = adverts_of(5)
    federation.call(1, "deal", adverts)
    secret = json.loads(federation.states[1])["window"]["transport"]
    federation.call(1, "commit", 5, 1, bytes(32), [2, 3, 4])
    assert secret.encode() not in federation.states[1]
    assert json.loads(federation.states[1])["window"] is None


def test_state_survives_a_restart_at_every_stage() -> None:
    """No secret is lost and none is made anew: building a silo and asking for its state is no act."""
    opened = open_window(Federation(4))
    federation, held = opened.federation, opened.round()
    held.mask(federation.updates())
    held.close()
    for stage in (lambda: None, held.commit, held.reveal):
        stage()
        for number, state in federation.states.items():
            assert federation.silo(number).state() == state
    assert (held.tally.total() == summed(federation.updates().values())).all()


def test_whoever_is_killed_after_its_state_was_kept_is_not_asked_again() -> None:
    """The state is on disk, the message is lost: the stage is over, and the round goes on without this silo."""
    held = masked_round(5)
    lost = held.federation
    assert refusal(lost.call, 1, "mask", 1, words_of(32, 16, 1), MODEL, RULES) is Rule.REPEATED
    held.commit_one(1)
    assert refusal(held.commit_one, 1) is Rule.TWO_FACED
    held.commit([1])
    held.reveal_one(1)
    assert refusal(held.reveal_one, 1) is Rule.REPEATED
    held.reveal([1])
    assert (held.tally.total() == summed(lost.updates().values())).all()


@pytest.mark.parametrize("known", [True, False], ids=["its ledger knows", "nothing knows"])
def test_a_silo_that_lost_its_state_has_no_part_in_the_round(known: bool) -> None:
    held = masked_round(5)
    held.federation.states[1] = None
    if not known:
        held.federation.ledgers[1] = Progress()
    rule = Rule.STALE if known else Rule.OUT_OF_ORDER
    assert refusal(held.federation.call, 1, "mask", 1, words_of(32, 16, 1), MODEL, RULES) is rule
    assert refusal(held.reveal_one, 1, [2, 3, 4, 5], signed_by(held, (2, 3, 4, 5), [2, 3, 4, 5])) is rule


@pytest.mark.parametrize("state", [b"", b"{", b"[]", b"{}", b'{"window":null,"other":1}', b"\xff", b'{"window":{}}'])
def test_a_state_that_cannot_be_read_is_refused(state: bytes) -> None:
    federation = Federation(3)
    with pytest.raises(CryptoError):
        Participant(federation.identities[1], federation.roster, federation.policy, RUN, state)


# Malformed, truncated, oversized, reordered


def spoiled(data: bytes) -> dict[str, bytes]:
    """Return one message in all the ways in which it is none."""
    huge = data[:28] + (2**24 + 1).to_bytes(4, "big") + bytes(2**24 + 1 + 64)
    return {
        "empty": b"",
        "header": data[:32],
        "cut": data[:-1],
        "cut body": data[:60] + data[-64:],
        "longer": data + b"\0",
        "oversized": huge,
        "magic": b"FMSB" + data[4:],
        "version": data[:4] + b"\2" + data[5:],
        "kind": data[:5] + b"\3" + data[6:],
        "suite": data[:6] + b"\2" + data[7:],
        "ring": data[:7] + b"\x10" + data[8:],
        "zero": data[:23] + b"\1" + data[24:],
        "length": data[:31] + bytes([data[31] ^ 1]) + data[32:],
    }


def test_what_is_no_advert_is_refused() -> None:
    federation, adverts = adverts_of(4)
    before = federation.states[1]
    for name, data in spoiled(adverts[2]).items():
        told = [*adverts[:2], data, adverts[3]]
        assert refusal(federation.call, 1, "deal", told) is Rule.MALFORMED, name
    assert federation.states[1] == before
    assert len(federation.call(1, "deal", adverts[::-1])) == 3  # in any order


def test_the_order_of_adverts_changes_nothing() -> None:
    federation, adverts = adverts_of(4)
    federation.call(1, "deal", adverts[::-1])
    federation.call(2, "deal", adverts)
    cohorts = {federation.silo(number)._state.window.cohort_digest for number in (1, 2)}
    assert len(cohorts) == 1


def test_what_is_no_share_counts_as_not_dealt() -> None:
    federation, rows = dealt(5)
    state = federation.states[1]
    for name, data in spoiled(rows[2][1]).items():
        federation.states[1] = state
        faults, masked_with = received(federation, rows, 1, first=data)
        assert (list(faults), masked_with) == ([0], [3, 4, 5]), name


def test_what_is_no_commit_is_refused() -> None:
    held = masked_round(5)
    held.commit()
    before = held.federation.states[5]
    commits = held.tally.commits()
    for name, data in spoiled(commits[1]).items():
        assert refusal(held.reveal_one, 5, None, [commits[0], data, *commits[2:]]) is Rule.MALFORMED, name
    assert held.federation.states[5] == before


# What the server then holds


def test_an_honest_round_gives_the_sum_and_nothing_else() -> None:
    held, _ = run_round(open_window(Federation(6)), gone={Kind.MASK: [6]})
    for colluding in ([], [5], [6]):
        view = View(held, colluding)
        assert view.both_secrets() == []
        assert view.gives(held.tally.survivors)


def test_before_the_reveals_nothing_follows() -> None:
    held = masked_round(5)
    assert len(View(held, [5]).sums()) == 0


def test_a_live_silo_called_dead_stays_hidden() -> None:
    """It masked, and a quorum signed a list without it: all give shares of its root, and nobody one of its b."""
    held = masked_round(5)
    without = [1, 3, 4, 5]
    commits = [held.commit_one(number, without) for number in (1, 2, 3, 4)]
    for number in (1, 2, 3, 4):
        held.reveals[number] = held.reveal_one(number, without, commits)
    for number, message in held.reveals.items():
        given_ = {dealer: secret for dealer, (secret, _) in Reveal.read(message, held.place).shares.items()}
        # Silo 2 itself is not in the sum, and gives no share of any b.
        assert given_ == {2: Secret.ROOT} | (dict.fromkeys(without, Secret.B) if number in without else {})
    everybody = [1, 2, 3, 4, 5]
    for number in (1, 2, 3, 4):
        again = signed_by(held, everybody, everybody)
        assert refusal(held.reveal_one, number, everybody, again) is Rule.REPEATED

    view = View(held, colluding=[5])
    assert view.knows(Secret.ROOT, 2)
    assert view.holders[Secret.B, 2] == {5}
    assert view.both_secrets() == []
    assert view.gives(without)
    # What it is kept from: with its b as well, its update would stand bare.
    view.holders[Secret.B, 2] |= {1, 3, 4}
    assert view.both_secrets() == [2]
    assert len(view.sums()) == 2


@pytest.mark.parametrize("colluding", [[], [7]])
def test_a_silo_given_the_shares_of_the_vanished_alone_stays_hidden(colluding: list[int]) -> None:
    """It masks with just those whose roots come back. Whoever sent nothing gives no share of its b, so that stays."""
    federation = Federation(7, colluding=len(colluding), n_min=3)
    collection, adverts, _ = collect_adverts(federation, WINDOW)
    for number in federation.numbers:
        collection.add_shares(federation.call(number, "deal", adverts))
    least = collection.topology.threshold - 1
    some = set(range(8 - least, 8))
    for number in federation.numbers:
        shares = [
            data
            for data in collection.shares_for(number)
            if number != 1 or Share.read(data, MessageScope(collection.setting, 1)).sender in some
        ]
        federation.call(number, "receive", shares)
    held = Round(Opened(federation, collection), 1)
    alive = [number for number in federation.numbers if number not in some]
    for number in alive:
        held.mask_one(number, federation.updates()[number])
    context = held_context(held)
    # The victim refuses the list; whoever else is honest signs it.
    assert refusal(held.commit_one, 1, alive, context) is Rule.NOT_MASKED_WITH
    commits = [held.commit_one(number, alive, context) for number in federation.numbers if number != 1]
    for number in federation.numbers[1:]:
        held.reveals[number] = held.reveal_one(number, alive, commits, context)
    view = View(held, colluding)
    assert all(view.knows(Secret.ROOT, number) for number in some)
    assert not view.knows(Secret.B, 1)
    honest = sorted(view.masked_with.keys() - set(colluding))
    assert all(np.abs(row[honest.index(1)]) < 1e-9 for row in view.sums())


def test_the_shares_of_b_that_a_server_can_gather_fit_every_b() -> None:
    """With one share fewer than the threshold, every secret has a polynomial through them."""
    held = masked_round(5)
    gathered = {
        number: int(held.federation.silo(number)._state.window.rounds["1"].held["2"][0], 16) for number in (1, 3, 5)
    }
    for guess in (0, 1, shamir.PRIME - 1):
        coefficients = shamir.lagrange_at_zero([*gathered, 4])
        known = sum(share * coefficients[one] for one, share in gathered.items())
        fourth = (guess - known) * pow(coefficients[4], -1, shamir.PRIME) % shamir.PRIME
        assert shamir.combine({**gathered, 4: fourth}, coefficients) == guess


@pytest.fixture(scope="module")
def stopped() -> dict[str, tuple[Round, Moment]]:
    """Rounds of both consistencies, stopped when all have masked, with the moment to go on from."""
    held = {consistency: masked_round(5, consistency=consistency) for consistency in ("commit", "quorum")}
    return {consistency: (one, one.federation.moment()) for consistency, one in held.items()}


LISTS = st.sampled_from([[1, 2, 3, 4, 5], [1, 2, 3, 4], [1, 2, 3], [2, 3, 4, 5], [1, 4, 5], [1, 3, 5]])


def hostile_reveals(stopped, consistency: str, signing, shown) -> View:
    """Show each honest silo a list to sign and a list to reveal on; silo 5 signs anything. Return what follows."""
    held, moment = stopped[consistency]
    held.federation.go_back(moment)
    held.reveals = {}
    commits = []
    for number, survivors in enumerate(signing, start=1):
        try:
            commits.append((survivors, held.commit_one(number, survivors)))
        except AggregationRefused:
            pytest.fail("a first list of the cohort is signed")
    for number, survivors in enumerate(shown, start=1):
        fitting = [data for told, data in commits if told == survivors] + signed_by(held, [5], survivors)
        try:
            held.reveals[number] = held.reveal_one(number, survivors, fitting)
        except AggregationRefused as error:
            assert error.rule in (Rule.TWO_FACED, Rule.QUORUM)  # noqa: PT017
    return View(held, colluding=[5])


@settings(max_examples=60)
@given(signing=st.tuples(*[LISTS] * 4), shown=st.tuples(*[LISTS] * 4))
def test_whatever_lists_are_shown_at_most_one_sum_follows(stopped, signing, shown) -> None:
    view = hostile_reveals(stopped, "commit", signing, shown)
    assert view.both_secrets() == []
    sums = view.sums()
    assert len(sums) <= 1
    if len(sums):
        assert any(view.gives(survivors) for survivors in signing)


@settings(max_examples=60)
@given(shown=st.tuples(*[LISTS] * 4))
def test_without_commits_at_most_one_sum_follows(stopped, shown) -> None:
    """The weaker consistency: no silo has both secrets out, though the sum may be over a set that nobody saw."""
    held, moment = stopped["quorum"]
    held.federation.go_back(moment)
    held.reveals = {number: held.reveal_one(number, told, []) for number, told in enumerate(shown, start=1)}
    view = View(held, colluding=[5])
    assert view.both_secrets() == []
    assert len(view.sums()) <= 1


def test_two_assignments_of_updates_give_the_server_one_view(monkeypatch: pytest.MonkeyPatch) -> None:
    """Move d from one honest silo's update to another's, and their pair mask by d: every message is the same bytes.

    The server does not know that pair mask, so it cannot tell how the sum is spread over the two.
    """
    opened = open_window(Federation(4))
    federation, updates = opened.federation, opened.federation.updates()
    before = federation.moment()
    held, total = run_round(opened)
    view = View(held, colluding=[4])
    assert not view.knows(Secret.ROOT, 1)
    assert not view.knows(Secret.ROOT, 2)

    agreed = Participant(federation.identities[1], federation.roster, federation.policy, RUN, before[0][1])
    secret = bytes.fromhex(agreed._state.window.rounds["1"].pairs["2"])
    theirs, d = pair_key(secret, held.context, 1, 2), words_of(32, 16, 77)

    def apply_other(words, masks):
        apply_masks(words, masks)
        for _, sign in (one for one in masks if one[0] == theirs):
            words -= d if sign > 0 else -d

    monkeypatch.setattr(silo_module, "apply_masks", apply_other)
    federation.go_back(before)
    other, other_total = run_round(opened, updates={**updates, 1: updates[1] + d, 2: updates[2] - d})
    assert other.masked == held.masked
    assert all((other.words[number] == held.words[number]).all() for number in updates)
    assert (other.commits, other.reveals) == (held.commits, held.reveals)
    assert (other_total == total).all()


@pytest.mark.usefixtures("same_bytes")
def test_grinding_for_a_graph_is_worth_a_fresh_draw_a_try() -> None:
    """A server that leaves silos out, or lets a colluder try nonces, draws anew each time: it steers nothing.

    The number of colluders around a victim has the mean and the spread of a hypergeometric draw, so a try succeeds as
    `plan_topology` says, and many tries cost as many of the secrecy bits.
    """
    tries, silos, colluders, victim = 400, 400, set(range(1, 81)), 400
    topology = plan_topology(silos, len(colluders), 40, 40)
    assert not topology.complete
    setting = Federation(3).setting(WINDOW)
    adverts = [Advert(number, b"", bytes([number % 256]) * 32, (), ()) for number in range(1, silos + 1)]
    seeds, around = set(), []
    for attempt in range(tries):
        adverts[0] = replace(adverts[0], nonce=attempt.to_bytes(32, "big"))  # silo 1 colludes
        seed = graph_seed(setting, adverts)
        seeds.add(seed)
        near = neighbours_of(topology, range(1, silos + 1), seed, victim)
        around.append(len(colluders.intersection(near)))
    assert len(seeds) == tries
    expected = hypergeom(silos - 1, len(colluders), topology.degree)
    assert abs(np.mean(around) - expected.mean()) < 5 * expected.std() / tries**0.5
    assert abs(np.var(around) / expected.var() - 1) < 5 * (2 / tries) ** 0.5
    # A silo left out changes the seed as well.
    assert graph_seed(setting, adverts[:-1]) not in seeds
