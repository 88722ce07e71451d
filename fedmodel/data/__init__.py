"""Records: where they come from, how they are scaled, held out and, in a simulation, dealt."""

from fedmodel.data.records import (
    DataShape,
    Records,
    data_shape,
    held_out_records,
    partition,
    scale,
    silo_records,
)

__all__ = [
    "DataShape",
    "Records",
    "data_shape",
    "held_out_records",
    "partition",
    "scale",
    "silo_records",
]
