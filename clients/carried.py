"""What a silo carries from one round into the next, and when it may: everything that is let into an update is here.

Today that is the inner optimiser's state. It is made of noised gradients alone, so carrying it costs no privacy; it
lies in the outbox, in one file with the update that it was released with, behind its lineage.

Guarantee: a round begins from carried state only if the state's lineage is the one that the request names, and from
nothing where the request names none. Anything else is refused before anything is charged: state of other rounds than
the cohort's is what makes one update stand out in a sum (`fedmodel.secagg.lineage`).

State that was put back from a backup has its old lineage, and is refused like any other that was not named.
"""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, RecordDict
from flwr.common.constant import SType
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
        state[name] = {key: _read(array) for key, array in record.items()}
    return state


def leave(state: Carried, lineage: bytes) -> bytes:
    """Return what `begin` takes in the next round: nothing where nothing is carried.

    Args:
        state: What the round ended with.
        lineage: Of the round.
    """
    if not state:
        return b""
    kept = {name: ArrayRecord({key: _saved(value) for key, value in arrays.items()}) for name, arrays in state.items()}
    packed: bytes = recorddict_to_proto(RecordDict({**kept})).SerializeToString()
    return lineage + packed


def _saved(value: NDArray[Any]) -> Array:
    """Return an array as Flower keeps it, in the bytes of a file of numpy's."""
    if not value.flags.c_contiguous:
        return Array(value)
    name = str(value.dtype)
    return Array(name, value.shape, SType.NUMPY, _header(name, value.shape) + value.tobytes())


def _read(array: Array) -> NDArray[Any]:
    """Return an array that `_saved` kept, or Flower itself."""
    header = _header(array.dtype, tuple(array.shape))
    if array.stype != SType.NUMPY or not array.data.startswith(header):
        return array.numpy()
    return np.frombuffer(array.data, array.dtype, offset=len(header)).reshape(array.shape).copy()


@lru_cache(maxsize=1 << 12)
def _header(name: str, shape: tuple[int, ...]) -> bytes:
    """Return what a file of numpy's begins with: written and parsed anew, it takes longer than a small layer's values.

    It says type, shape and order, so that whatever begins with it is of these.
    """
    file = BytesIO()
    said = {"descr": np.lib.format.dtype_to_descr(np.dtype(name)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, said)
    return file.getvalue()
