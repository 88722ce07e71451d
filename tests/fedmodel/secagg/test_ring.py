"""Rings: packed as wide as they are, in one form; masks and sums are the ring's for every width and length."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmodel.errors import ProtocolError
from fedmodel.secagg import ring
from fedmodel.secagg.masking import add_mask, subtract_mask
from fedmodel.secagg.messages import Kind
from fedmodel.secagg.ring import WIDTHS, RingBits
from tests.fedmodel.secagg.peers import Federation, open_window, run_round, summed, words_of

EVERY = pytest.mark.parametrize("bits", WIDTHS)
SIZES = st.integers(0, 9) | st.sampled_from([1000, 1001])


@EVERY
@given(size=SIZES, seed=st.integers(0, 10_000))
def test_a_vector_takes_as_many_bits_as_the_ring_and_comes_back(bits: RingBits, size: int, seed: int) -> None:
    words = words_of(bits, size, seed)
    packed = ring.pack(bits, words)
    assert len(packed) == ring.packed_size(bits, size) == (size * bits + 7) // 8
    found = ring.unpack(bits, packed)
    assert found.dtype == ring.carrier(bits)
    assert found.tolist() == words.tolist()
    # What is packed is the number whose digits of `bits` bits the elements are.
    assert int.from_bytes(packed, "little") == sum(int(one) << bits * place for place, one in enumerate(words.tolist()))


@EVERY
@given(data=st.binary(max_size=40))
def test_bytes_are_the_one_form_of_a_vector_or_are_refused(bits: RingBits, data: bytes) -> None:
    try:
        words = ring.unpack(bits, data)
    except ProtocolError:
        odd = bits == 12 and len(data) % 3 == 2
        assert len(data) * 8 % bits >= 8 or (odd and data[-1] >> 4)
    else:
        assert ring.pack(bits, words) == data


def test_bits_after_the_last_element_are_zero() -> None:
    assert ring.unpack(12, b"\x01\x02").tolist() == [0x201]
    for data in (b"\x01\x12", b"\x01\x02\x03\x04\xf5"):
        with pytest.raises(ProtocolError, match="are zero"):
            ring.unpack(12, data)
    with pytest.raises(ProtocolError, match="4 bytes are no vector of elements of 12 bits"):
        ring.unpack(12, bytes(4))


@pytest.mark.parametrize(("bits", "dtype"), [(12, "<u2"), (24, "<u4")])
def test_what_is_too_large_for_the_ring_is_not_packed(bits: RingBits, dtype: str) -> None:
    for words in (np.array([0, 2**bits], dtype=dtype), np.zeros(2, dtype="<u1")):
        with pytest.raises(ProtocolError, match=f"of the ring of {bits} bits"):
            ring.pack(bits, words)


@EVERY
@given(data=st.lists(st.integers(0, 2**32 - 1), max_size=9))
def test_an_element_stands_for_the_integer_that_it_is_congruent_to(bits: RingBits, data: list[int]) -> None:
    half = 2 ** (bits - 1)
    integers = [one % (2 * half) - half for one in data] + [-half, half - 1, 0, -1]
    words = np.array([one % 2**bits for one in integers], dtype=ring.carrier(bits))
    assert ring.signed(bits, words).tolist() == integers
    # And so it is where the words hold more than the ring.
    more = np.array([one % 2 ** (8 * words.dtype.itemsize) for one in integers], dtype=words.dtype)
    assert ring.signed(bits, more).tolist() == integers
    ring.reduce(bits, more)
    assert more.tolist() == words.tolist()


@EVERY
@given(size=SIZES, seed=st.integers(0, 10_000))
def test_masks_cancel_in_a_sum_modulo_the_ring(bits: RingBits, size: int, seed: int) -> None:
    vectors = [words_of(bits, size, seed + one) for one in range(4)]
    sent = []
    for low, vector in enumerate(vectors):
        masked = vector.copy()
        for high in set(range(4)) - {low}:
            key = hashlib.sha256(bytes([min(low, high), max(low, high)])).digest()
            (add_mask if low < high else subtract_mask)(masked, key)
        ring.reduce(bits, masked)
        sent.append(ring.unpack(bits, ring.pack(bits, masked)))
    assert summed(sent, bits).tolist() == summed(vectors, bits).tolist()
    assert size < 1000 or all(not np.array_equal(*pair) for pair in zip(sent, vectors, strict=True))


@EVERY
@settings(max_examples=6)
@given(size=st.integers(1, 9), seed=st.integers(0, 1000), away=st.sampled_from([(), (2,)]))
def test_the_sum_of_masked_updates_is_the_plain_sum_with_a_dropout_too(
    bits: RingBits, size: int, seed: int, away: tuple[int, ...]
) -> None:
    federation = Federation(4, colluding=0, n_min=2, ring_bits=bits)
    updates = {number: words_of(bits, size, seed + number) for number in federation.numbers}
    held, total = run_round(open_window(federation), updates=updates, gone={Kind.MASK: away})
    assert all(ring.holds(bits, words) for words in held.words.values())
    assert total.tolist() == summed([updates[number] for number in held.tally.survivors], bits).tolist()


@pytest.mark.usefixtures("same_bytes")
@EVERY
def test_what_is_sent_of_a_masked_update_is_uniform_to_the_bit(bits: RingBits) -> None:
    federation = Federation(4, colluding=0, n_min=2, ring_bits=bits)
    held = open_window(federation).round()
    held.mask(dict.fromkeys(federation.numbers, np.zeros(40_000, ring.carrier(bits))))
    for words in [*held.words.values(), summed([held.words[1], held.words[2]], bits)]:
        ones = np.unpackbits(np.frombuffer(ring.pack(bits, words), dtype=np.uint8)).reshape(-1, bits if bits > 8 else 8)
        # Five standard errors of a fair coin, of each bit of an element.
        assert np.abs(ones.mean(axis=0) - 0.5).max() < 5 * 0.5 / len(ones) ** 0.5
