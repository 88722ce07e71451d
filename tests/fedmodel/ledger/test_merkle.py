"""The tree against certificate-transparency's vectors, against RFC 6962's definitions in plain recursion, and refusals.

`plain_root`, `plain_path` and `plain_proof` are MTH, PATH and PROOF as sections 2.1, 2.1.1 and 2.1.2 define them, on
lists of entries. They share nothing with the code under test, and first have to meet the vectors themselves.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmodel.errors import LedgerError, LedgerTampered
from fedmodel.ledger import merkle

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "merkle.json").read_text(encoding="utf-8"))
INPUTS = [bytes.fromhex(value) for value in VECTORS["inputs"]]
ROOTS = [bytes.fromhex(value) for value in (VECTORS["empty_root"], *VECTORS["roots"])]
SIZES = 70
ENTRIES = tuple(str(place).encode() for place in range(SIZES))


def split(size: int) -> int:
    """RFC 6962's k: the largest power of two smaller than n."""
    k = 1
    while 2 * k < size:
        k *= 2
    return k


@cache
def plain_root(entries: tuple[bytes, ...]) -> bytes:
    if not entries:
        return hashlib.sha256(b"").digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    k = split(len(entries))
    return hashlib.sha256(b"\x01" + plain_root(entries[:k]) + plain_root(entries[k:])).digest()


def plain_path(m: int, entries: tuple[bytes, ...]) -> tuple[bytes, ...]:
    if len(entries) == 1:
        return ()
    k = split(len(entries))
    if m < k:
        return (*plain_path(m, entries[:k]), plain_root(entries[k:]))
    return (*plain_path(m - k, entries[k:]), plain_root(entries[:k]))


def plain_proof(m: int, entries: tuple[bytes, ...], *, whole: bool = True) -> tuple[bytes, ...]:
    """PROOF is SUBPROOF with `whole`."""
    if m == len(entries):
        return () if whole else (plain_root(entries),)
    k = split(len(entries))
    if m <= k:
        return (*plain_proof(m, entries[:k], whole=whole), plain_root(entries[k:]))
    return (*plain_proof(m - k, entries[k:], whole=False), plain_root(entries[:k]))


class Stored:
    """Complete nodes as a store has them: each written once, as leaves are appended, and its reads counted."""

    def __init__(self, entries: Sequence[bytes] = ()) -> None:
        self.nodes: dict[tuple[int, int], bytes] = {}
        self.size = self.reads = 0
        for entry in entries:
            self.append(entry)

    def append(self, entry: bytes) -> None:
        for level, index, value in merkle.new_nodes(self.size, merkle.leaf_hash(entry), self.node):
            assert (level, index) not in self.nodes
            self.nodes[level, index] = value
        self.size += 1

    def node(self, level: int, index: int) -> bytes:
        self.reads += 1
        return self.nodes[level, index]


STORED = Stored(ENTRIES)


def refused(check: Callable[..., None], *arguments: object, match: str | None = None) -> None:
    with pytest.raises(LedgerTampered, match=match) as caught:
        check(*arguments)
    assert "\n" not in str(caught.value)


def flipped(value: bytes, bit: int) -> bytes:
    return (int.from_bytes(value, "big") ^ 1 << bit).to_bytes(len(value), "big")


def test_the_vectors_are_rfc_6962s() -> None:
    """The plain definitions alone; what follows may then rest on either."""
    for size, expected in enumerate(ROOTS):
        assert plain_root(tuple(INPUTS[:size])) == expected
    for case in VECTORS["inclusion"]:
        assert [value.hex() for value in plain_path(case["index"], tuple(INPUTS[: case["size"]]))] == case["proof"]
    for case in VECTORS["consistency"]:
        assert [value.hex() for value in plain_proof(case["old"], tuple(INPUTS[: case["new"]]))] == case["proof"]


def test_roots_and_proofs_are_the_published_ones() -> None:
    assert ROOTS[0] == merkle.EMPTY_ROOT
    stored = Stored(INPUTS)
    for size, expected in enumerate(ROOTS):
        assert merkle.root(size, stored.node) == expected
    for case in VECTORS["inclusion"]:
        index, size, proof = case["index"], case["size"], tuple(bytes.fromhex(value) for value in case["proof"])
        assert merkle.inclusion_proof(index, size, stored.node) == proof
        merkle.check_inclusion(index, size, merkle.leaf_hash(INPUTS[index]), proof, ROOTS[size])
    for case in VECTORS["consistency"]:
        old, new, proof = case["old"], case["new"], tuple(bytes.fromhex(value) for value in case["proof"])
        assert merkle.consistency_proof(old, new, stored.node) == proof
        merkle.check_consistency(old, ROOTS[old], new, ROOTS[new], proof)


def test_a_leaf_is_never_an_inner_node() -> None:
    left, right = merkle.leaf_hash(b"a"), merkle.leaf_hash(b"b")
    assert merkle.node_hash(left, right) != merkle.leaf_hash(left + right)
    assert merkle.node_hash(left, right) != merkle.node_hash(right, left)


def test_every_complete_node_is_made_once_and_is_the_hash_over_its_leaves() -> None:
    complete = {
        (level, index): plain_root(ENTRIES[index << level : (index + 1) << level])
        for level in range(SIZES.bit_length())
        for index in range(SIZES >> level)
    }
    assert STORED.nodes == complete
    for size in (0, 1, 6, 7):
        made = merkle.new_nodes(size, merkle.leaf_hash(ENTRIES[size]), STORED.node)
        assert [level for level, _, _ in made] == list(range(len(made)))


def test_every_root_and_proof_up_to_70_leaves_is_the_definitions() -> None:
    for size in range(SIZES + 1):
        entries = ENTRIES[:size]
        whole = plain_root(entries)
        assert merkle.root(size, STORED.node) == whole
        for index in range(size):
            proof = merkle.inclusion_proof(index, size, STORED.node)
            assert proof == plain_path(index, entries)
            merkle.check_inclusion(index, size, merkle.leaf_hash(entries[index]), proof, whole)
        for old in range(size + 1):
            proof = merkle.consistency_proof(old, size, STORED.node)
            assert proof == (plain_proof(old, entries) if old else ())
            merkle.check_consistency(old, plain_root(entries[:old]), size, whole, proof)


def test_few_nodes_are_read() -> None:
    for size in range(1, SIZES + 1):
        most = size.bit_length()
        STORED.reads = 0
        merkle.root(size, STORED.node)
        assert STORED.reads <= most
        for other in range(size):
            STORED.reads = 0
            merkle.inclusion_proof(other, size, STORED.node)
            assert STORED.reads <= 2 * most + 1
            STORED.reads = 0
            merkle.consistency_proof(other, size, STORED.node)
            assert STORED.reads <= 2 * most + 2


def test_every_flipped_bit_of_an_inclusion_is_refused() -> None:
    for size in range(1, 10):
        whole = merkle.root(size, STORED.node)
        for index in range(size):
            leaf, proof = merkle.leaf_hash(ENTRIES[index]), merkle.inclusion_proof(index, size, STORED.node)
            for bit in range(256):
                refused(merkle.check_inclusion, index, size, flipped(leaf, bit), proof, whole)
                refused(merkle.check_inclusion, index, size, leaf, proof, flipped(whole, bit))
                for place, sibling in enumerate(proof):
                    changed = (*proof[:place], flipped(sibling, bit), *proof[place + 1 :])
                    refused(merkle.check_inclusion, index, size, leaf, changed, whole)


def test_every_flipped_bit_of_a_consistency_is_refused() -> None:
    for new in range(1, 10):
        later = merkle.root(new, STORED.node)
        for old in range(1, new + 1):
            earlier, proof = merkle.root(old, STORED.node), merkle.consistency_proof(old, new, STORED.node)
            for bit in range(256):
                refused(merkle.check_consistency, old, flipped(earlier, bit), new, later, proof)
                refused(merkle.check_consistency, old, earlier, new, flipped(later, bit), proof)
                for place, sibling in enumerate(proof):
                    changed = (*proof[:place], flipped(sibling, bit), *proof[place + 1 :])
                    refused(merkle.check_consistency, old, earlier, new, later, changed)


def mangled(proof: tuple[bytes, ...], *strangers: bytes) -> list[tuple[bytes, ...]]:
    """Every proof with one hash dropped or put in, or two neighbours swapped."""
    dropped = [(*proof[:place], *proof[place + 1 :]) for place in range(len(proof))]
    added = [(*proof[:place], value, *proof[place:]) for place in range(len(proof) + 1) for value in strangers]
    swapped = [(*proof[:place], proof[place + 1], proof[place], *proof[place + 2 :]) for place in range(len(proof) - 1)]
    return [other for other in (*dropped, *added, *swapped) if other != proof]


def test_every_longer_shorter_or_reordered_proof_is_refused() -> None:
    for size in range(1, 34):
        whole = merkle.root(size, STORED.node)
        for index in range(size):
            leaf, proof = merkle.leaf_hash(ENTRIES[index]), merkle.inclusion_proof(index, size, STORED.node)
            for other in mangled(proof, whole, leaf, bytes(32)):
                refused(merkle.check_inclusion, index, size, leaf, other, whole)
        for old in range(size + 1):
            earlier, proof = merkle.root(old, STORED.node), merkle.consistency_proof(old, size, STORED.node)
            for other in mangled(proof, whole, earlier, bytes(32)):
                refused(merkle.check_consistency, old, earlier, size, whole, other)


def test_every_other_place_is_refused() -> None:
    """One root, one leaf and one proof hold for one index; see the next test for the size."""
    for size in range(1, 34):
        whole = merkle.root(size, STORED.node)
        for index in range(size):
            leaf, proof = merkle.leaf_hash(ENTRIES[index]), merkle.inclusion_proof(index, size, STORED.node)
            for other in (*range(-2, index), *range(index + 1, size + 3)):
                refused(merkle.check_inclusion, other, size, leaf, proof, whole)


def turns(index: int, size: int) -> list[bool]:
    """On which side the sibling is at each step from a leaf to the root: all that a path's check depends on."""
    if size == 1:
        return []
    k = split(size)
    return [*turns(index, k), False] if index < k else [*turns(index - k, size - k), True]


def test_a_wrong_size_is_refused_wherever_the_path_is_another() -> None:
    """A root does not say its size, so a path that is alike in both trees holds for both: heads sign size and root."""
    alike = 0
    for size in range(1, 34):
        whole = merkle.root(size, STORED.node)
        for index in range(size):
            leaf, proof = merkle.leaf_hash(ENTRIES[index]), merkle.inclusion_proof(index, size, STORED.node)
            for other in (-1, *range(size), *range(size + 1, 40)):
                if other > index and turns(index, other) == turns(index, size):
                    merkle.check_inclusion(index, other, leaf, proof, whole)
                    alike += 1
                else:
                    refused(merkle.check_inclusion, index, other, leaf, proof, whole)
    assert alike


def test_a_wrong_earlier_size_is_refused() -> None:
    for new in range(2, 34):
        later = merkle.root(new, STORED.node)
        for old in range(1, new):
            earlier, proof = merkle.root(old, STORED.node), merkle.consistency_proof(old, new, STORED.node)
            for other in (-1, 0, *range(1, old), *range(old + 1, new + 2)):
                refused(merkle.check_consistency, other, earlier, new, later, proof)
            for other in range(-1, old + 1):
                refused(merkle.check_consistency, old, earlier, other, later, proof)


@given(st.integers(1, 2000), st.randoms(use_true_random=False))
def test_larger_trees_hold_and_one_changed_bit_does_not(size: int, chance: random.Random) -> None:
    stored = Stored([place.to_bytes(2, "big") for place in range(size)])
    entries = tuple(place.to_bytes(2, "big") for place in range(size))
    index, old = chance.randrange(size), chance.randrange(1, size + 1)
    whole, earlier = merkle.root(size, stored.node), merkle.root(old, stored.node)
    assert (whole, earlier) == (plain_root(entries), plain_root(entries[:old]))
    leaf, proof = merkle.leaf_hash(entries[index]), merkle.inclusion_proof(index, size, stored.node)
    assert proof == plain_path(index, entries)
    merkle.check_inclusion(index, size, leaf, proof, whole)
    grown = merkle.consistency_proof(old, size, stored.node)
    assert grown == plain_proof(old, entries)
    merkle.check_consistency(old, earlier, size, whole, grown)
    bit = chance.randrange(256)
    for place in range(len(proof)):
        changed = (*proof[:place], flipped(proof[place], bit), *proof[place + 1 :])
        refused(merkle.check_inclusion, index, size, leaf, changed, whole)
    for place in range(len(grown)):
        changed = (*grown[:place], flipped(grown[place], bit), *grown[place + 1 :])
        refused(merkle.check_consistency, old, earlier, size, whole, changed)
    for other in mangled(proof, leaf):
        refused(merkle.check_inclusion, index, size, leaf, other, whole)
    for other in mangled(grown, earlier):
        refused(merkle.check_consistency, old, earlier, size, whole, other)


@given(st.integers(2, 300), st.data())
def test_a_rewritten_ledger_has_no_proof(size: int, data: st.DataObject) -> None:
    """Whatever entry is changed, removed or doubled below the old size, the honest algorithm's proof does not hold."""
    entries = [place.to_bytes(2, "big") for place in range(size)]
    old = data.draw(st.integers(1, size - 1))
    place = data.draw(st.integers(0, old - 1))
    earlier = plain_root(tuple(entries[:old]))
    rewritten = {
        "changed": [*entries[:place], b"other", *entries[place + 1 :]],
        "removed": [*entries[:place], *entries[place + 1 :]],
        "doubled": [*entries[: place + 1], *entries[place:]],
        "swapped": [*entries[:place], entries[place + 1], entries[place], *entries[place + 2 :]],
    }
    for how, other in rewritten.items():
        if plain_root(tuple(other[:old])) == earlier:
            # Doubling the last, and swapping with one beyond, may leave the first `old` as they were.
            assert how == "doubled"
            continue
        stored = Stored(other)
        proof = merkle.consistency_proof(old, len(other), stored.node)
        refused(merkle.check_consistency, old, earlier, len(other), merkle.root(len(other), stored.node), proof)


def test_edges_of_consistency() -> None:
    one, two = (merkle.root(size, STORED.node) for size in (1, 2))
    empty, check = merkle.EMPTY_ROOT, merkle.check_consistency
    proof = merkle.consistency_proof(1, 2, STORED.node)
    check(0, empty, 0, empty, ())
    check(0, empty, 2, two, ())
    check(2, two, 2, two, ())
    refused(check, 0, empty, 2, two, proof, match="is empty, and this has 1")
    refused(check, 0, empty, 0, empty, (empty,), match="is empty")
    refused(check, 2, two, 2, two, (two,), match="is empty")
    refused(check, 2, two, 2, one, (), match="two histories")
    refused(check, 0, one, 2, two, (), match="0 leaves has one root")
    refused(check, 0, one, 0, one, (), match="0 leaves has one root")
    refused(check, 1, one, 0, empty, (), match="does not extend")
    refused(check, 2, two, 1, one, proof, match="does not extend")
    refused(check, -1, empty, 2, two, (), match="does not extend")
    refused(check, -2, empty, -1, empty, (), match="does not extend")
    refused(check, 1, one, 2, two, (), match="too short")
    refused(check, 3, one, 4, two, (), match="too short")
    refused(check, 1, one, 2, two, (*proof, one), match="too long")
    refused(check, 1, two, 2, two, proof, match="roots differ")
    refused(check, 1, one, 2, one, proof, match="roots differ")


def test_edges_of_inclusion() -> None:
    one, two = (merkle.root(size, STORED.node) for size in (1, 2))
    proof = merkle.inclusion_proof(0, 2, STORED.node)
    merkle.check_inclusion(0, 1, one, (), one)
    for index, size in ((0, 0), (1, 1), (2, 1), (-1, 1), (0, -1), (-2, -1)):
        refused(merkle.check_inclusion, index, size, one, (), one, match="no leaf number")
    refused(merkle.check_inclusion, 0, 2, one, (), two, match="too short")
    refused(merkle.check_inclusion, 0, 2, one, (*proof, one), two, match="too long")
    refused(merkle.check_inclusion, 0, 1, one, (one,), one, match="too long")
    refused(merkle.check_inclusion, 0, 2, two, proof, two, match="roots differ")


def test_hashes_of_another_length_are_refused() -> None:
    """Also where the bytes would give the right root: a byte moved from one child to the other is the same input."""
    four = merkle.root(4, STORED.node)
    leaf, (low, high) = merkle.leaf_hash(ENTRIES[0]), merkle.inclusion_proof(0, 4, STORED.node)
    shifted = (leaf + low[:1], (low[1:], high))
    assert merkle.node_hash(shifted[0], shifted[1][0]) == merkle.node_hash(leaf, low)
    refused(merkle.check_inclusion, 0, 4, shifted[0], shifted[1], four, match="33 bytes")
    refused(merkle.check_inclusion, 0, 4, leaf, (low, high[:-1]), four, match="31 bytes")
    refused(merkle.check_inclusion, 0, 4, leaf, (low, high), four[:-1], match="31 bytes")
    refused(merkle.check_inclusion, 0, 4, leaf, (low, high, b""), four, match="0 bytes")
    two, (grown,) = merkle.root(2, STORED.node), merkle.consistency_proof(2, 4, STORED.node)
    assert merkle.node_hash(two + grown[:1], grown[1:]) == four
    refused(merkle.check_consistency, 2, two + grown[:1], 4, four, (grown[1:],), match="33 bytes")
    refused(merkle.check_consistency, 2, two, 4, four, (grown[1:],), match="31 bytes")
    refused(merkle.check_consistency, 2, two, 4, four + b"\0", (grown,), match="33 bytes")
    refused(merkle.check_consistency, 0, b"", 4, four, (), match="0 bytes")
    refused(merkle.check_consistency, 4, b"", 4, b"", (), match="0 bytes")


def test_who_asks_for_what_is_not_there_is_told() -> None:
    for index, size in ((0, 0), (3, 3), (-1, 3), (0, -1)):
        with pytest.raises(LedgerError, match="no leaf number"):
            merkle.inclusion_proof(index, size, STORED.node)
    for old, new in ((2, 1), (-1, 1), (-2, -1)):
        with pytest.raises(LedgerError, match="does not extend"):
            merkle.consistency_proof(old, new, STORED.node)
    with pytest.raises(LedgerError, match="0 leaves or more"):
        merkle.root(-1, STORED.node)
