"""Kinds of partition, a file each: the section of a scenario that a person writes, and how it deals records out.

What says no kind is `dirichlet`, the first that there was; what says `use` is `own`.
"""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

from pydantic import Discriminator, Tag

from fedmodel.kinds.partition import Partition
from fedmodel.kinds.section import sections
from fedmodel.system.kinds import kinds

PARTITIONS: Final = sections(kinds(__name__), Partition, "kind")  # type: ignore[type-abstract]  # it is never called
FIRST: Final = "dirichlet"
OWN: Final = "own"


def kind_of(value: Any) -> str:
    """Return which kind a section is of, as it was written or is."""
    if isinstance(value, Partition):
        return value.kind
    if not isinstance(value, dict):
        return FIRST
    return str(value.get("kind", OWN if "use" in value else FIRST))


if TYPE_CHECKING:
    PartitionConfig: TypeAlias = Partition
else:
    PartitionConfig = Annotated[
        reduce(or_, (Annotated[kind, Tag(name)] for name, kind in PARTITIONS.items())), Discriminator(kind_of)
    ]
