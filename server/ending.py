"""The end of a run: each silo that joined is told the model's hash, and countersigns its ledger for run and model.

What comes back is the head of the silo's ledger with that entry in it (`fedmodel.ledger.entries.COUNTERSIGNED`). It is
kept among the heads that the server remembers; the entry itself is in the ledger, from which reports are made. A silo
that is not there, or refuses, has none: the run has ended all the same, and a report says so of it by name.

Does NOT wait for a silo that is not connected, and for the others no longer than for a round.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from fedmodel import wire
from server.answers import answered, excused, reasons
from server.exchange import Post
from server.joining import JoinedSilo
from server.known_heads import KnownHeads

logger = logging.getLogger(__name__)


def collect_countersignatures(
    post: Post, round_number: int, known_heads: KnownHeads, members: Mapping[str, JoinedSilo], model: bytes
) -> dict[str, str]:
    """Ask the silos of a run that has ended to countersign it.

    Args:
        post: Carries the questions.
        round_number: What they are grouped by, past the run's rounds.
        known_heads: Takes the heads.
        members: By silo, all that joined, those that left too.
        model: SHA-256 of the model, 32 bytes.

    Returns:
        Codes of the silos that did not, by silo.
    """
    post.begin(round_number)
    there = set(post.present())
    missing = {silo: "lost" for silo, member in members.items() if member.node_id not in there}
    contents = {
        silo: (member.node_id, wire.countersign_request(wire.CountersignRequest(model, known_heads.known(silo))))
        for silo, member in members.items()
        if silo not in missing
    }
    with known_heads.kept_together():
        for silo, reply in post.ask(wire.COUNTERSIGN, round_number, contents):
            with excused(missing, silo):
                known_heads.follow(silo, wire.read_countersign_reply(answered(reply)))
    if missing:
        logger.warning("no countersignature of %s; each silo's own log says why", reasons(missing))
    return missing
