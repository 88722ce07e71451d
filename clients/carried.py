"""What a silo carries from one round into the next, and when it may: everything that is let into an update is here.

Today that is the inner optimiser's state. It is made of noised gradients alone, so carrying it costs no privacy; it
lies in the outbox, in one file with the update that it was released with, behind its lineage.

Guarantee: a round begins from carried state only if the state's lineage is the one that the request names, and from
nothing where the request names none. Anything else is refused before anything is charged: state of other rounds than
the cohort's is what makes one update stand out in a sum (`fedmodel.secagg.lineage`).

State that was put back from a backup has its old lineage, and is refused like any other that was not named.
"""

from __future__ import annotations

from typing import Any

from flwr.app import Array, ArrayRecord, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict
from numpy.typing import NDArray

from fedmodel.errors import AggregationRefused, ProtocolError, Rule
from fedmodel.secagg import FRESH, LINEAGE_SIZE

Carried = dict[str, dict[str, NDArray[Any]]]
"""As `fedmodel.learning.jobs` has it, which imports torch: arrays by name, by what they are of."""


def begin(kept: bytes, named: bytes) -> Carried:
    """Return what a round begins with besides the model.

    Args:
        kept: What the last round of this run left, as `leave` returned it; empty where there is nothing.
        named: The lineage that the request names.

    Raises:
        AggregationRefused: When it names one that is not this silo's.
    """
    if named == FRESH:
        return {}
    if kept[:LINEAGE_SIZE] != named:
        raise AggregationRefused(
            Rule.LINEAGE, "the round is to begin from state that this silo does not hold; the next begins fresh"
        )
    state: Carried = {}
    for name, record in recorddict_from_proto(ProtoRecordDict.FromString(kept[LINEAGE_SIZE:])).items():
        if not isinstance(record, ArrayRecord):
            raise ProtocolError("what was carried from the last round is no arrays; it is not begun from")
        state[name] = {key: array.numpy() for key, array in record.items()}
    return state


def leave(state: Carried, lineage: bytes) -> bytes:
    """Return what `begin` takes in the next round: nothing where nothing is carried.

    Args:
        state: What the round ended with.
        lineage: Of the round.
    """
    if not state:
        return b""
    kept = {name: ArrayRecord({key: Array(value) for key, value in arrays.items()}) for name, arrays in state.items()}
    packed: bytes = recorddict_to_proto(RecordDict({**kept})).SerializeToString()
    return lineage + packed
