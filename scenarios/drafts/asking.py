"""What a draft needs to know that no file says: its owner is asked, or says it by options.

Ranges, categories and labels are public knowledge, a laboratory's, a textbook's or a code list's, and are never read
off the data: a scenario is public, and a range that was read off tells everybody the oldest patient's age, paid for by
no budget. So each is asked for, and none has a default.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar

from fedmodel.data.looking import Looked, Seen
from fedmodel.data.seen import COMMAS, DATES, NUMBERS, TRUTHS, WORDS
from fedmodel.errors import ConfigError
from fedmodel.kinds.columns import rises

T = TypeVar("T")
WHY: Final = (
    "A scenario is public, so nothing in it may be read off the data: a range that was would tell everybody the oldest"
    " patient's age. Say ranges, categories and labels from public knowledge: a laboratory, a textbook, a code list."
)
_SILO: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


class Ask(Protocol):
    """Asks the owner, or looks up what an option said."""

    def __call__(self, option: str, question: str, read: Callable[[str], T]) -> T | None:
        """Return the answer as `read` reads it, None where there is none yet; `read` raises ValueError with a rule."""


@dataclass(frozen=True)
class Answers:
    """What the owner says of the data and of the federation; all of it is public.

    Attributes:
        label: The column to predict.
        labels: Its classes, in order.
        person: The column that says whose a record is; None where each record is its person's only one.
        max_records: Most records of one person.
        columns: For each feature its range, its categories, or None where it is true or false.
        left_out: Columns that are not used.
        silos: Their names.
        records: Between which public numbers each silo's records lie.
        epsilon: The target.
    """

    label: str
    labels: tuple[str, ...]
    person: str | None
    max_records: int | None
    columns: Mapping[str, tuple[float, float] | tuple[str, ...] | None]
    left_out: tuple[str, ...]
    silos: tuple[str, ...]
    records: tuple[int, int]
    epsilon: float


@dataclass
class Options:
    """What options said, and what none said.

    Attributes:
        given: By option, as "--range age".
        missing: What else has to be said.
    """

    given: Mapping[str, str]
    missing: list[str] = field(default_factory=list)

    def __call__(self, option: str, question: str, read: Callable[[str], T]) -> T | None:  # noqa: ARG002 - one shape
        """Return what an option said, or note that nothing did."""
        if option not in self.given:
            self.missing.append(option)
            return None
        try:
            return read(self.given[option])
        except ValueError as error:
            raise ConfigError(f"{option}: {error}") from None


def gather(looked: Looked, left_out: tuple[str, ...], given: Mapping[str, str], ask: Ask) -> Answers | None:
    """Ask for everything that a draft needs.

    Args:
        looked: The file.
        left_out: Columns that the owner does not want.
        given: What options said, by which a column of numbers may be one of codes.
        ask: Asks.

    Returns:
        The answers; None where some are missing.
    """
    names = [column.name for column in looked.columns]
    label = ask("--label", f"Which column is to be predicted? ({', '.join(names)})", _one_of(names))
    seen = {column.name: column for column in looked.columns}
    labels = ask("--labels", f"Its classes, in order, separated by commas{_shown(seen.get(label or ''))}", _choices)
    said = "Which column says whose a record is? Or: record, where each is its person's only one"
    person = ask("--person", said, _one_of([*names, "record"]))
    most = None
    if person is not None and person != "record":
        most = ask("--max-records", "At most how many records of one person are used?", _count)
    columns: dict[str, tuple[float, float] | tuple[str, ...] | None] = {}
    dropped = list(left_out)
    for column in looked.columns:
        if column.name in (label, person) or column.name in left_out:
            continue
        answer = _feature(column, given, ask)
        if answer == ():
            dropped.append(column.name)
        else:
            columns[column.name] = answer
    silos = ask("--silos", "Names of the silos, three at least, separated by commas", _silos)
    records = ask("--records", "Between which numbers do each silo's records lie, LOW:HIGH? Not the counts", _numbers)
    epsilon = ask("--epsilon", "Epsilon of each silo for the whole run", _positive)
    if label is None or labels is None or person is None or silos is None or records is None or epsilon is None:
        return None
    whose = None if person == "record" else person
    return Answers(label, labels, whose, most, columns, tuple(dropped), silos, records, epsilon)


def _feature(column: Seen, given: Mapping[str, str], ask: Ask) -> tuple[float, float] | tuple[str, ...] | None:
    """Return a feature's range or categories, None where it is true or false, () where it is left out."""
    categories = f"--categories {column.name}"
    if categories not in given:
        if column.kind in (TRUTHS, WORDS):
            return None
        if column.kind == DATES:
            return ()
        if column.kind in (NUMBERS, COMMAS):
            question = f"Public range of {column.name!r}, LOW:HIGH, as for a healthy adult; nothing leaves it out"
            return ask(f"--range {column.name}", question, _range_or_none) or ()
    question = f"Categories of {column.name!r}, separated by commas; nothing leaves it out{_shown(column)}"
    return ask(categories, question, _choices_or_none) or ()


def _shown(column: Seen | None) -> str:
    """Return what the owner's file has of a column, for the owner's screen."""
    return f" (this file has {', '.join(column.values)})" if column is not None and column.values else ""


def _one_of(names: list[str]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in names:
            raise ValueError(f"{text!r} is none of {', '.join(names)}")
        return text

    return read


def _choices(text: str) -> tuple[str, ...]:
    found = tuple(part.strip() for part in text.split(","))
    if len(found) < 2 or not all(found) or len(set(found)) < len(found):
        raise ValueError(f"{text!r}: give two or more different names, separated by commas")
    return found


def _choices_or_none(text: str) -> tuple[str, ...]:
    return _choices(text) if text.strip() else ()


def _range(text: str) -> tuple[float, float]:
    low, _, high = text.partition(":")
    try:
        pair = (float(low), float(high))
    except ValueError:
        raise ValueError(f"{text!r}: a range is LOW:HIGH, two numbers") from None
    if not rises(pair):
        raise ValueError(f"{text!r}: a range rises from low to high")
    return pair


def _range_or_none(text: str) -> tuple[float, float] | tuple[()]:
    return _range(text) if text.strip() else ()


def _numbers(text: str) -> tuple[int, int]:
    low, high = _range(text)
    if low < 1 or low != int(low) or high != int(high):
        raise ValueError(f"{text!r}: numbers of records are whole, from 1")
    return int(low), int(high)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{text!r} is no whole number from 1")
    return int(text)


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is no number") from None
    if not 0 < number <= 100:
        raise ValueError(f"{text!r}: epsilon is a number over 0 and up to 100")
    return number


def _silos(text: str) -> tuple[str, ...]:
    found = _choices(text)
    if len(found) < 3 or not all(_SILO.fullmatch(name) for name in found):
        raise ValueError(f"{text!r}: give three names or more, in lower-case letters, digits and hyphens")
    return found
