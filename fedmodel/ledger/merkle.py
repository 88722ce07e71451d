"""The Merkle tree of RFC 6962, section 2.1: roots, proofs that an entry is in a tree, that a tree extends another.

A ledger's entries are the leaves. Who holds a root of 32 bytes can have checked, with O(log n) hashes,

    inclusion     that an entry stands at its place in the tree of that root
    consistency   that a later tree begins with the same entries, none changed, removed, reordered or put between

Both checks follow RFC 9162, sections 2.1.3.2 and 2.1.4.2, and refuse a proof with a hash too many or too few.

Nothing is stored here. Whoever stores the tree keeps its complete subtrees: node (level, index) is the hash over the
leaves from index * 2^level up to, and without, (index + 1) * 2^level. A complete node never changes as the tree grows.
Any other root or proof follows from O(log n) of them.

Does NOT hide the entries: a leaf's hash lets anybody confirm a guess of the entry. Does NOT say which tree is the right
one: a root is worth what its holder's trust in its source is worth; `fedmodel.ledger.heads` signs it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final

from fedmodel.errors import LedgerError, LedgerTampered

HASH_SIZE: Final = 32
# The standard library's SHA-256, since appending is little else than hashing 65 bytes at a time: it takes 0.4
# microseconds for them, that of `cryptography` 1.4. No key is involved.
EMPTY_ROOT: Final = sha256().digest()

Node = Callable[[int, int], bytes]
"""Reads the complete node at (level, index)."""

# A leaf's hash never passes for an inner node's, nor the other way round, though an entry can be any 64 bytes.
_LEAF: Final = b"\x00"
_INNER: Final = b"\x01"


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of one entry.

    >>> leaf_hash(b"").hex()[:8]
    '6e340b9c'
    """
    return sha256(_LEAF + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node from its children's, 32 bytes each."""
    return sha256(_INNER + left + right).digest()


def new_nodes(size: int, leaf: bytes, node: Node) -> list[tuple[int, int, bytes]]:
    """Return the complete nodes that come into being with one more leaf.

    Args:
        size: Leaves before; the new one has this number, from 0.
        leaf: Its hash.
        node: Reads the nodes of the tree before.

    Returns:
        Level, index and hash of each, the leaf itself first. Their number is 2 on average.
    """
    made = [(0, size, leaf)]
    level, index, right = 0, size, leaf
    # A right child completes its parent; a left child waits for its sibling.
    while index & 1:
        right = node_hash(node(level, index - 1), right)
        level, index = level + 1, index >> 1
        made.append((level, index, right))
    return made


def root(size: int, node: Node) -> bytes:
    """Return the root of the tree of the first `size` leaves, from at most log2(size) + 1 nodes."""
    if size < 0:
        raise LedgerError(f"a tree has 0 leaves or more, not {size}")
    return _span(0, size, node) if size else EMPTY_ROOT


def inclusion_proof(index: int, size: int, node: Node) -> tuple[bytes, ...]:
    """Return the proof that a leaf is in the tree of the first `size` leaves: its siblings' hashes, the lowest first.

    Args:
        index: The leaf's number, from 0.
        size: Leaves of the tree, more than `index`.
        node: Reads complete nodes; it is called at most 2 log2(size) + 1 times.

    Raises:
        LedgerError: When there is no such leaf.
    """
    if not 0 <= index < size:
        raise LedgerError(f"a tree of {size} leaves has no leaf number {index}, counted from 0")
    proof = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            proof.append(_span(middle, end, node))
            end = middle
        else:
            proof.append(_span(start, middle, node))
            start = middle
    return tuple(reversed(proof))


def consistency_proof(old: int, new: int, node: Node) -> tuple[bytes, ...]:
    """Return the proof that the tree of the first `new` leaves extends that of the first `old`.

    Args:
        old: Leaves of the earlier tree.
        new: Leaves of the later one, not fewer.
        node: Reads complete nodes; it is called at most 2 log2(new) + 2 times.

    Returns:
        Hashes, the lowest first; none when `old` is 0 or `new`, since then there is nothing to prove.

    Raises:
        LedgerError: When no tree of `new` leaves extends one of `old`.
    """
    if not 0 <= old <= new:
        raise LedgerError(f"a tree of {new} leaves does not extend one of {old}")
    if old in (0, new):
        return ()
    proof = []
    start, end, ours = 0, new, True
    while end != old:
        middle = start + _split(end - start)
        if old <= middle:
            proof.append(_span(middle, end, node))
            end = middle
        else:
            proof.append(_span(start, middle, node))
            start, ours = middle, False
    # Where the walk never went right, what is left is the old tree itself, whose root the checker has.
    if not ours:
        proof.append(_span(start, end, node))
    return tuple(reversed(proof))


def check_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes) -> None:
    """Check that a leaf is in a tree.

    Guarantee: under SHA-256's collision resistance, what passes is leaf number `index` of every list of `size` leaves
    with this root.

    Args:
        index: The leaf's number, from 0.
        size: Leaves of the tree.
        leaf: The leaf's hash.
        proof: As `inclusion_proof` gives it.
        root: Of the tree; its source is trusted.

    Raises:
        LedgerTampered: When it is not, or anything has another length than it must have.
    """
    if not 0 <= index < size:
        raise LedgerTampered(f"a tree of {size} leaves has no leaf number {index}, counted from 0")
    _check_lengths(leaf, root, *proof)
    place, last, found = index, size - 1, leaf
    for sibling in proof:
        if not last:
            raise LedgerTampered(f"an inclusion proof of {len(proof)} hashes is too long for leaf {index} of {size}")
        if place & 1 or place == last:
            found = node_hash(sibling, found)
            # The last node of a level with an odd number of them has no sibling there and rises as it is.
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        place, last = place >> 1, last >> 1
    if last:
        raise LedgerTampered(f"an inclusion proof of {len(proof)} hashes is too short for leaf {index} of {size}")
    if found != root:
        raise LedgerTampered(f"an entry is not the one at place {index} of the ledger's {size}: the roots differ")


def check_consistency(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Check that a later tree begins with all leaves of an earlier one.

    Guarantee: under SHA-256's collision resistance, if this passes, whatever `new` leaves have the later root, the
    first `old` of them have the earlier one.

    | Sizes         | Passes with                                                |
    |---------------|------------------------------------------------------------|
    | old = 0       | an empty proof, and the earlier root that of an empty tree |
    | old = new     | an empty proof, and equal roots                            |
    | 0 < old < new | a proof of the one right length that yields both roots     |
    | else          | nothing                                                    |

    Args:
        old: Leaves of the earlier tree.
        old_root: Its root, which the checker has kept.
        new: Leaves of the later one.
        new_root: Its root.
        proof: As `consistency_proof` gives it.

    Raises:
        LedgerTampered: When it does not, or anything has another length than it must have.
    """
    if not 0 <= old <= new:
        raise LedgerTampered(f"a tree of {new} leaves does not extend one of {old}")
    _check_lengths(old_root, new_root, *proof)
    for size, head in ((old, old_root), (new, new_root)):
        if size == 0 and head != EMPTY_ROOT:
            raise LedgerTampered("a tree of 0 leaves has one root, the hash of nothing, and this is another")
    if old in (0, new):
        if proof:
            raise LedgerTampered(f"a consistency proof from {old} to {new} leaves is empty, and this has {len(proof)}")
        if old == new and old_root != new_root:
            raise LedgerTampered(f"two roots for one size of {new} leaves: the ledger has shown two histories")
        return
    _check_growth(old, old_root, new, new_root, proof)


def _check_growth(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Check a proof between two trees of which neither is empty, and the later is larger."""
    # The earlier tree of a power of two leaves is a node of the later one, so the proof leaves its root out.
    hashes = proof if old & (old - 1) else (old_root, *proof)
    if not hashes:
        raise LedgerTampered(f"a consistency proof of 0 hashes is too short from {old} to {new} leaves")
    place, last = old - 1, new - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    earlier = later = hashes[0]
    for sibling in hashes[1:]:
        if not last:
            raise LedgerTampered(f"a consistency proof of {len(proof)} hashes is too long from {old} to {new} leaves")
        if place & 1 or place == last:
            earlier, later = node_hash(sibling, earlier), node_hash(sibling, later)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            later = node_hash(later, sibling)
        place, last = place >> 1, last >> 1
    if last:
        raise LedgerTampered(f"a consistency proof of {len(proof)} hashes is too short from {old} to {new} leaves")
    if earlier != old_root or later != new_root:
        raise LedgerTampered(f"the ledger's {new} entries do not begin with the {old} that it had: the roots differ")


def _check_lengths(*hashes: bytes) -> None:
    """Refuse a hash of another length: two children could trade bytes across their border."""
    for value in hashes:
        if len(value) != HASH_SIZE:
            raise LedgerTampered(f"a hash of {len(value)} bytes, where {HASH_SIZE} are needed")


def _split(size: int) -> int:
    """Return the largest power of two below a size of at least 2: how many leaves the left child has."""
    return 1 << ((size - 1).bit_length() - 1)


def _span(start: int, end: int, node: Node) -> bytes:
    """Return the hash over the leaves from `start` up to `end`, where `start` is where the tree puts such a subtree."""
    size, found = end - start, b""
    # From the right: each complete subtree is as large as the lowest bit of what is left, and is the left child.
    while size:
        level = (size & -size).bit_length() - 1
        size &= size - 1
        left = node(level, (start + size) >> level)
        found = node_hash(left, found) if found else left
    return found
