"""What a silo carries from one round into the next, and when it may: everything that is let into an update is here.

Today that is the inner optimiser's state. It is made of noised gradients alone, so carrying it costs no privacy; it
lies in the outbox, in one file with the update that it was released with, behind its lineage.

Guarantee: a round begins from carried state only if the state's lineage is the one that the request names, and from
nothing where the request names none. Anything else is refused before anything is charged: state of other rounds than
the cohort's is what makes one update stand out in a sum (`fedmodel.secagg.lineage`).

State that was put back from a backup has its old lineage, and is refused like any other that was not named.
"""

from __future__ import annotations

from flwr.app import RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict

from fedmodel.errors import AggregationRefused, Rule
from fedmodel.secagg import FRESH, LINEAGE_SIZE


def begin(kept: bytes, named: bytes) -> RecordDict:
    """Return what a round begins with besides the model.

    Args:
        kept: What the last round of this run left, as `leave` returned it; empty where there is nothing.
        named: The lineage that the request names.

    Raises:
        AggregationRefused: When it names one that is not this silo's.
    """
    if named == FRESH:
        return RecordDict()
    if kept[:LINEAGE_SIZE] != named:
        raise AggregationRefused(
            Rule.LINEAGE, "the round is to begin from state that this silo does not hold; the next begins fresh"
        )
    return recorddict_from_proto(ProtoRecordDict.FromString(kept[LINEAGE_SIZE:]))


def leave(state: RecordDict, lineage: bytes) -> bytes:
    """Return what `begin` takes in the next round: nothing where nothing is carried.

    Args:
        state: What the round ended with.
        lineage: Of the round.
    """
    return lineage + recorddict_to_proto(state).SerializeToString() if state else b""
