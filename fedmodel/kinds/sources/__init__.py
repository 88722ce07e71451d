"""Kinds of source, a file each: the section of a scenario that a person writes, and the records of those dealt out."""

from typing import Final

from fedmodel.kinds.section import sections
from fedmodel.kinds.source import Source
from fedmodel.system.kinds import kinds

SOURCES: Final = sections(kinds(__name__), Source, "source")  # type: ignore[type-abstract]  # it is never called
