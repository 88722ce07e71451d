"""What is found of a folder, and a part of a report held to what follows.

Guarantee: `hold` passes a part only if each field of it that follows here is what follows, to the tolerances of
`scenarios.report.diff`. Fields that do not follow here are left alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fedmodel.errors import ClaimRefuted
from scenarios.report.diff import differences, in_words
from scenarios.report.verifier import signed


@dataclass
class Found:
    """What was found to hold.

    Attributes:
        items: What was checked, a line each.
        gaps: What is vouched for by nothing outside of the folder, or could not be checked for want of something.
        claim: What is claimed, by figures that were found to follow.
        signer: Whose key signed it, in hexadecimal.
    """

    claim: str
    signer: str
    items: list[tuple[str, str]] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)


def hold_rows(path: str, stored: Sequence[Mapping[str, Any]], follows: Sequence[Mapping[str, Any]]) -> None:
    """Refuse rows of a report of which there are more or fewer than follow, or one is not what follows."""
    if len(stored) != len(follows):
        raise ClaimRefuted(f"{path}: {len(stored)} rows stand, {len(follows)} follow from the ledgers")
    for place, (one, other) in enumerate(zip(stored, follows, strict=True)):
        hold(f"{path}[{place}]", one, other, str(other["silo"]))


def hold(
    path: str, stored: Mapping[str, Any], follows: Mapping[str, Any], source: str, file: str = signed.REPORT
) -> None:
    """Refuse a part of a file of which a field is not what follows; fields that do not follow here are left alone."""
    for difference in differences(_only(stored, follows), follows, path):
        raise ClaimRefuted(f"{file}: {in_words(difference)} from {source}")


def _only(stored: Any, follows: Any) -> Any:
    """Return of a document the fields that another has, at every depth."""
    if isinstance(stored, dict) and isinstance(follows, dict):
        return {name: _only(value, follows[name]) for name, value in stored.items() if name in follows}
    if isinstance(stored, list) and isinstance(follows, list) and len(stored) == len(follows):
        return [_only(one, other) for one, other in zip(stored, follows, strict=True)]
    return stored
