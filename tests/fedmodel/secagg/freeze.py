"""Makes the frozen vectors: `python -m tests.fedmodel.secagg.freeze` writes the file that `test_frozen` compares with.

Every secret is drawn from a counter under a hash in place of the operating system's CSPRNG, here and nowhere else. What
HPKE seals stays random, so of a SHARE only what stands before its envelope is frozen, and every size.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from fedmodel.crypto import Suite, primitives
from fedmodel.secagg import Window, shamir
from fedmodel.secagg import silo as silo_module
from fedmodel.secagg.masking import add_mask
from fedmodel.secagg.messages import Kind, MessageScope, Share
from fedmodel.secagg.ring import RingBits, carrier, pack, reduce
from tests.fedmodel.secagg.peers import RUN, Federation, open_window, run_round

FILE = Path(__file__).parents[2] / "vectors" / "secagg.json"
ORDER: tuple[RingBits, ...] = (16, 32, 8, 12, 24)
"""Of the rings, as they came to be."""
EDGE = [0, 1, 2**31 - 1, 2**31, 2**32 - 1]


@contextmanager
def counted_secrets(seed: bytes) -> Iterator[None]:
    """Draw all that protocol and keys draw from SHA-512(seed, counter); a field element by reduction."""
    drawn = 0

    def block() -> bytes:
        nonlocal drawn
        drawn += 1
        return hashlib.sha512(seed + drawn.to_bytes(8, "big")).digest()

    def random_bytes(size: int) -> bytes:
        assert size <= 64
        return block()[:size]

    def randbelow(bound: int) -> int:
        return int.from_bytes(block(), "big") % bound

    with (
        mock.patch.object(primitives, "random_bytes", random_bytes),
        mock.patch.object(silo_module, "random_bytes", random_bytes),
        mock.patch.object(shamir.secrets, "randbelow", randbelow),
    ):
        yield


def mask_vectors() -> list[dict[str, Any]]:
    """The mask of a key: its first bytes and its hash, by ring."""
    vectors = []
    for ring in ORDER:
        words = np.zeros(1000, carrier(ring))
        add_mask(words, bytes(range(32)))
        reduce(ring, words)
        told = pack(ring, words)
        vectors.append(
            {
                "name": f"mask of the key 00..1f in the ring of {ring} bits",
                "ring": ring,
                "key": bytes(range(32)).hex(),
                "words": 1000,
                "expected": {"first": told[:32].hex(), "sha256": hashlib.sha256(told).hexdigest()},
            }
        )
    return vectors


def share_vectors() -> list[dict[str, Any]]:
    """Shares of polynomials whose other coefficients are counted."""
    vectors = []
    for secret, threshold, points in (
        (0, 2, [1, 2, 3]),
        (2**255 + 12345, 4, [1, 2, 3, 5, 8]),
        (shamir.PRIME - 1, 1, [7]),
    ):
        with counted_secrets(b"shares"):
            shares = shamir.split(secret, threshold, points)
        vectors.append(
            {
                "name": f"{len(points)} shares with a threshold of {threshold}",
                "secret": f"{secret:064x}",
                "threshold": threshold,
                "points": points,
                "expected": {str(point): f"{share:064x}" for point, share in shares.items()},
            }
        )
    return vectors


def transcript(ring: RingBits) -> dict[str, Any]:
    """A window of two rounds of four silos under the classic suite; silo 3 misses the second round's MASK."""
    with counted_secrets(b"transcript"):
        federation = Federation(4, ring_bits=ring)
        sent: list[dict[str, Any]] = []

        def record(kind: Kind, sender: int, message: Any) -> Any:
            for data in message if kind is Kind.SHARE else [message[0] if kind is Kind.MASK else message]:
                row: dict[str, Any] = {"kind": kind.name, "sender": sender, "size": len(data)}
                if kind is Kind.SHARE:
                    share = Share.read(data, MessageScope(federation.setting(window), window.first))
                    head = data[: 32 + 32 + 4 + 4]
                    row |= {"receiver": share.receiver, "envelope": len(share.envelope), "head": head.hex()}
                else:
                    row["sha256"] = hashlib.sha256(data).hexdigest()
                if kind is Kind.MASK:
                    row["words_sha256"] = hashlib.sha256(pack(ring, message[1])).hexdigest()
                sent.append(row)
            return message

        window = Window(RUN, 1, 1, 2)
        opened = open_window(federation, window, tamper=record)
        rounds = []
        for number, gone in ((1, []), (2, [3])):
            edge = (np.array(EDGE, np.uint64) + np.uint64(number)) % 2**ring
            held, total = run_round(
                opened,
                number,
                updates={one: (edge * one % 2**ring).astype(carrier(ring)) for one in federation.numbers},
                gone={Kind.MASK: gone},
                tamper=record,
            )
            rounds.append(
                {
                    "round": number,
                    "context": held.context.hex(),
                    "survivors": list(held.tally.survivors),
                    "total": total.tolist(),
                }
            )
    policy = {**asdict(federation.policy), "suite": federation.policy.suite.name}
    return {
        "name": f"two rounds of four silos, the second without silo 3's update, in the ring of {ring} bits",
        "suite": Suite.CLASSIC.name,
        "ring": ring,
        "policy": policy,
        "expected": {
            "roster": federation.roster.digest.hex(),
            "policy": federation.policy.digest.hex(),
            "base": federation.setting(window).base.hex(),
            "cohort": opened.collection.cohort_digest.hex(),
            "messages": sent,
            "rounds": rounds,
        },
    }


def vectors() -> dict[str, Any]:
    """Return all of them, as they are in the file."""
    return {
        "version": 1,
        "masks": mask_vectors(),
        "shares": share_vectors(),
        "transcripts": [transcript(ring) for ring in ORDER],
    }


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(json.dumps(vectors(), indent=1) + "\n", encoding="utf-8")
