"""Kinds of source, a file each: the section of a scenario that a person writes, and the records of those dealt out."""

from typing import Final

from fedmodel.kinds.section import sections
from fedmodel.kinds.source import Source
from fedmodel.system.kinds import kinds

SOURCES: Final = sections(kinds(__name__), Source, "source")  # type: ignore[type-abstract]  # it is never called


def names_taken() -> tuple[str, ...]:
    """Return what no data set can be called that has a name of its own: what those without one are called."""
    return ("table", *(name for name, kind in SOURCES.items() if "name" not in kind.model_fields))
