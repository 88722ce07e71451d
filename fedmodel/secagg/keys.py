"""Every key of a round, derived from the two secrets that can be recovered: `root` and `b`.

Silo and server share this module, because whoever recovers a secret must derive the very keys that its owner had.

    root_i --> mask key pair of i --> ss_ij with each neighbour --> k_ij, under ctx
    b_i ----------------------------------------------------------> self key of i, under ctx

Guarantee: with `root_i` and `root_j` unknown, ss_ij is indistinguishable from uniform. Under the classic suite this
rests on X25519. Under the post-quantum suite ss_ij is a secret of i, sealed to j by the hybrid of ML-KEM-768 and
X25519, so it holds as long as one of the two does. Every derivation has a label of its own and binds the window, the
round and the pair.
"""

from __future__ import annotations

from typing import Final

from fedmodel.crypto import AgreementKey, SealingKey, Suite, derive_key, digest, seal

MASK_KEY_SIZE: Final = {Suite.CLASSIC: 32, Suite.POST_QUANTUM: 1184 + 32}
# What HPKE adds to 32 bytes under the hybrid: ML-KEM's ciphertext, an X25519 key and a tag.
OFFER_SIZE: Final = {Suite.CLASSIC: 0, Suite.POST_QUANTUM: 1088 + 32 + 32 + 16}


class MaskKey:
    """The key pair with which a silo agrees on masks in one round.

    Args:
        suite: Of the round.
        root: The secret that the key pair is derived from, in F_p.
        base: Of the window.
        round_number: Of the window.
        number: The silo's.
    """

    def __init__(self, suite: Suite, root: int, base: bytes, round_number: int, number: int) -> None:
        self._number = number
        self._place = base + round_number.to_bytes(4, "big")
        self._root = root.to_bytes(32, "big")
        place = self._place + number.to_bytes(4, "big")
        self._key: AgreementKey | SealingKey
        if suite is Suite.CLASSIC:
            self._key = AgreementKey(self._root, b"fedmodel/v1/sa-mask-key", place)
        else:
            self._key = SealingKey(suite, self._root, place)
        self.public = self._key.public

    def offer(self, peer: int, public: bytes) -> bytes:
        """Return what a peer needs to share a secret with us; empty unless the suite is hybrid and we are the lower.

        Raises:
            CryptoError: When the peer's key is not usable.
        """
        if isinstance(self._key, AgreementKey) or peer < self._number:
            return b""
        return seal(Suite.POST_QUANTUM, public, self._own_secret(peer), self._pair(self._number, peer))

    def agree(self, peer: int, public: bytes, offered: bytes) -> bytes:
        """Return the 32 bytes shared with a peer.

        Args:
            peer: The peer's number.
            public: The peer's mask key.
            offered: What the silo with the lower number offered.

        Raises:
            CryptoError: When the peer's key is our own or of small order, or the offer does not open.
        """
        if isinstance(self._key, AgreementKey):
            return self._key.agree(public)
        if peer > self._number:
            return self._own_secret(peer)
        return self._key.open(offered, self._pair(peer, self._number))

    def _own_secret(self, peer: int) -> bytes:
        return derive_key(self._root, b"fedmodel/v1/sa-pair-secret", self._pair(self._number, peer))

    def _pair(self, lower: int, upper: int) -> bytes:
        return self._place + lower.to_bytes(4, "big") + upper.to_bytes(4, "big")


def pair_key(secret: bytes, context: bytes, one: int, other: int) -> bytes:
    """Return k_ij, the key of the mask that two silos share; the lower number adds it, the higher subtracts it."""
    pair = min(one, other).to_bytes(4, "big") + max(one, other).to_bytes(4, "big")
    return derive_key(secret, b"fedmodel/v1/sa-pair", context + pair)


def self_key(secret: int, context: bytes, number: int) -> bytes:
    """Return the key of the mask that a silo shares with nobody."""
    return derive_key(secret.to_bytes(32, "big"), b"fedmodel/v1/sa-self", context + number.to_bytes(4, "big"))


def commitment(secret: int, base: bytes, round_number: int, number: int) -> bytes:
    """Return the hash that commits a silo to its `b`. It hides b, because b is uniform in a field of about 2^256."""
    place = base + round_number.to_bytes(4, "big") + number.to_bytes(4, "big")
    return digest(b"fedmodel/v1/sa-commit-b", place, secret.to_bytes(32, "big"))


def envelope_context(base: bytes, cohort: bytes, sender: int, receiver: int) -> bytes:
    """Return what the sealed shares from one silo to another are bound to."""
    return b"fedmodel/v1/sa-envelope" + base + cohort + sender.to_bytes(4, "big") + receiver.to_bytes(4, "big")
