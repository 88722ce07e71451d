"""What the first version computed and sent, byte for byte; a change of it is a change of the wire format."""

from __future__ import annotations

import json

import pytest

from tests.fedmodel.secagg import freeze

KINDS = ("masks", "shares", "transcripts")
FROZEN = json.loads(freeze.FILE.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def made() -> dict:
    """All vectors, computed now."""
    return json.loads(json.dumps(freeze.vectors()))


@pytest.mark.parametrize(
    ("kind", "place"),
    [(kind, place) for kind in KINDS for place in range(len(FROZEN[kind]))],
    ids=lambda value: value if isinstance(value, str) else f"{value}",
)
def test_what_was_frozen_is_computed_still(made: dict, kind: str, place: int) -> None:
    assert made[kind][place] == FROZEN[kind][place]


def test_every_vector_is_frozen_and_says_what_is_expected(made: dict) -> None:
    assert FROZEN["version"] == made["version"]
    for kind in KINDS:
        assert [vector["name"] for vector in FROZEN[kind]] == [vector["name"] for vector in made[kind]]
        assert all(vector["expected"] for vector in FROZEN[kind])


def test_a_transcript_has_every_message() -> None:
    kinds = [row["kind"] for row in FROZEN["transcripts"][0]["expected"]["messages"]]
    counts = {kind: kinds.count(kind) for kind in kinds}
    assert counts == {"ADVERT": 4, "SHARE": 12, "MASK": 7, "COMMIT": 8, "REVEAL": 8}


def test_the_sum_of_a_transcript_is_the_sum_of_its_updates() -> None:
    for vector in FROZEN["transcripts"]:
        for one in vector["expected"]["rounds"]:
            ring = 2 ** vector["ring"]
            count = sum(one["survivors"])
            assert one["total"] == [(edge + one["round"]) % ring * count % ring for edge in freeze.EDGE]
