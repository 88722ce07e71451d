"""What a draft needs to know that no file says: its owner is asked, or says it by options.

Ranges, categories and labels are public knowledge, a laboratory's, a textbook's or a code list's, and are never read
off the data: a scenario is public, and a range that was read off tells everybody the oldest patient's age, paid for by
no budget. So each is asked for, and none has a default. That goes for what a column is, too: one record with "unknown"
among yes and no would else take a column of truths out of a public scenario.

Guarantee: for two files with the same header, whoever says the same gets the same answers. What a file holds is shown
on its owner's screen, and chooses which option a refusal names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeAlias, TypeVar

from fedmodel.data.looking import Looked, Seen
from fedmodel.data.seen import COMMAS, DATES, NUMBERS, TRUTHS, WORDS
from fedmodel.errors import ConfigError
from fedmodel.kinds.columns import rises

T = TypeVar("T")
_Declared: TypeAlias = tuple[float, float] | tuple[str, ...]
WHY: Final = (
    "A scenario is public, so nothing in it may be read off the data: a range that was would tell everybody the oldest"
    " patient's age. Say ranges, categories, labels and ends from public knowledge: a laboratory, a textbook, a code"
    " list."
)
BOOLEAN: Final = "boolean"
_BOOLEAN: Final = (BOOLEAN,)  # categories are two at least, so that this is none of them
TIMED: Final = ("--time", "--ends", "--time-unit")
"""The options of a time until an event: where one is given, the label says whether the event ended it."""
_SILO: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


class Ask(Protocol):
    """Asks the owner, or looks up what an option said."""

    def __call__(self, option: str, question: str, read: Callable[[str], T]) -> T | None:
        """Return the answer as `read` reads it, None where there is none yet; `read` raises ValueError with a rule."""


@dataclass(frozen=True)
class Times:
    """What the owner says of a time until an event.

    Attributes:
        column: The column that says for how long each was looked at.
        ends: When each interval ends.
        unit: What both are counted in.
    """

    column: str
    ends: tuple[float, ...]
    unit: str


@dataclass(frozen=True)
class Answers:
    """What the owner says of the data and of the federation; all of it is public.

    Attributes:
        label: The column to predict; of a time, whether the event ended it.
        labels: Its classes, in order; of a number, its range; of a time, what stands for no event and for one, nothing
            where these are truths.
        person: The column that says whose a record is; None where each record is its person's only one.
        max_records: Most records of one person.
        columns: For each feature its range, its categories, or None where it is true or false, as its owner said.
        left_out: Columns that are not used.
        silos: Their names.
        records: Between which public numbers each silo's records lie.
        epsilon: The target.
        times: Where a time until an event is learnt.
    """

    label: str
    labels: _Declared
    person: str | None
    max_records: int | None
    columns: Mapping[str, tuple[float, float] | tuple[str, ...] | None]
    left_out: tuple[str, ...]
    silos: tuple[str, ...]
    records: tuple[int, int]
    epsilon: float
    times: Times | None = None


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
        given: What options said; they decide what a column is, whatever the file holds.
        ask: Asks.

    Returns:
        The answers; None where some are missing.
    """
    names = [column.name for column in looked.columns]
    label = ask("--label", f"Which column is to be predicted? ({', '.join(names)})", one_of(names))
    seen = {column.name: column for column in looked.columns}
    shown = _shown(seen.get(label or ""))
    is_timed = any(option in given for option in TIMED)
    times = _times(names, ask) if is_timed else None
    labels: _Declared | None = ()
    if not is_timed or "--labels" in given:
        classes = f"Its classes, in order, separated by commas; of a number LOW:HIGH{shown}"
        labels = ask("--labels", classes, read_choices if is_timed else _label)
    said = "Which column says whose a record is? Or: record, where each is its person's only one"
    person = ask("--person", said, one_of([*names, "record"]))
    most = None
    if person is not None and person != "record":
        most = ask("--max-records", "At most how many records of one person are used?", _count)
    columns: dict[str, tuple[float, float] | tuple[str, ...] | None] = {}
    dropped = list(left_out)
    for column in looked.columns:
        if column.name in (label, person, times and times.column) or column.name in left_out:
            continue
        answer = _feature(column, given, ask)
        if answer == ():
            dropped.append(column.name)
        else:
            columns[column.name] = None if answer == _BOOLEAN else answer
    silos = ask("--silos", "Names of the silos, three at least, separated by commas", read_silos)
    records = ask(
        "--records", "Between which numbers do each silo's records lie, LOW:HIGH? Not the counts", read_numbers
    )
    epsilon = ask("--epsilon", "Epsilon of each silo for the whole run", read_positive)
    if label is None or labels is None or person is None or silos is None or records is None or epsilon is None:
        return None
    if is_timed and times is None:
        return None
    whose = None if person == "record" else person
    return Answers(label, labels, whose, most, columns, tuple(dropped), silos, records, epsilon, times)


def _times(names: list[str], ask: Ask) -> Times | None:
    """Return what is said of a time until an event, None where some is missing."""
    column = ask("--time", f"Which column says for how long each was looked at? ({', '.join(names)})", one_of(names))
    ends = ask("--ends", "When does each interval of time end? Rising numbers, separated by commas", _ends)
    unit = ask("--time-unit", "What are they counted in? As months", _word)
    return None if column is None or ends is None or unit is None else Times(column, ends, unit)


def _feature(column: Seen, given: Mapping[str, str], ask: Ask) -> _Declared:
    """Return what a feature's owner says that it is: a range, categories, `_BOOLEAN`, or () where it is left out."""
    said = [option for option in _KINDS if f"{option} {column.name}" in given]
    if len(said) > 1:
        raise ConfigError(f"{' and '.join(f'{one} {column.name}' for one in said)}: a column is one of them; say one")
    option, read = (said[0], _KINDS[said[0]]) if said else (_NAMED.get(column.kind, "--categories"), _any_kind)
    question = (
        f"What is {column.name!r}? LOW:HIGH, its public range, as for a healthy adult; or its categories, separated by"
        f" commas; or: {BOOLEAN}; nothing leaves it out{_shown(column) or f' (this file has {column.kind})'}"
    )
    return ask(f"{option} {column.name}", question, read) or ()


def _shown(column: Seen | None) -> str:
    """Return what the owner's file has of a column, for the owner's screen."""
    return f" (this file has {', '.join(column.values)})" if column is not None and column.values else ""


def _truths(text: str) -> tuple[str, ...]:
    if text != BOOLEAN:
        raise ValueError(f"{text!r} is not: {BOOLEAN}")
    return _BOOLEAN


def one_of(names: list[str]) -> Callable[[str], str]:
    """Return what reads one of some names."""

    def read(text: str) -> str:
        if text not in names:
            raise ValueError(f"{text!r} is none of {', '.join(names)}")
        return text

    return read


def read_choices(text: str) -> tuple[str, ...]:
    """Read categories or classes."""
    found = tuple(part.strip() for part in text.split(","))
    if len(found) < 2 or not all(found) or len(set(found)) < len(found):
        raise ValueError(f"{text!r}: give two or more different names, separated by commas")
    return found


def _range(text: str) -> tuple[float, float]:
    low, _, high = text.partition(":")
    try:
        pair = (float(low), float(high))
    except ValueError:
        raise ValueError(f"{text!r}: a range is LOW:HIGH, two numbers") from None
    if not rises(pair):
        raise ValueError(f"{text!r}: a range rises from low to high")
    return pair


def _ends(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"{text!r}: ends are numbers, separated by commas") from None


def _word(text: str) -> str:
    if not text.strip():
        raise ValueError("say a word in the plural, as months")
    return text.strip()


def _any_kind(text: str) -> _Declared:
    """Read whatever a feature may be: a comma is between categories, a colon alone between two numbers."""
    text = text.strip()
    if not text or text == BOOLEAN:
        return _BOOLEAN if text else ()
    if "," in text:
        return read_choices(text)
    if ":" not in text:
        raise ValueError(f"{text!r}: say a range LOW:HIGH, categories A,B, or: {BOOLEAN}")
    return _range(text)


def _label(text: str) -> _Declared:
    """Read what a label may be: classes, or the range of a number."""
    return _range(text) if ":" in text and "," not in text else read_choices(text)


def read_numbers(text: str) -> tuple[int, int]:
    """Read between which numbers each silo's records lie."""
    low, high = _range(text)
    if low < 1 or low != int(low) or high != int(high):
        raise ValueError(f"{text!r}: numbers of records are whole, from 1")
    return int(low), int(high)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{text!r} is no whole number from 1")
    return int(text)


def read_positive(text: str) -> float:
    """Read an epsilon."""
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is no number") from None
    if not 0 < number <= 100:
        raise ValueError(f"{text!r}: epsilon is a number over 0 and up to 100")
    return number


def read_silos(text: str) -> tuple[str, ...]:
    """Read the names of silos."""
    found = read_choices(text)
    if len(found) < 3 or not all(_SILO.fullmatch(name) for name in found):
        raise ValueError(f"{text!r}: give three names or more, in lower-case letters, digits and hyphens")
    return found


_KINDS: Final[Mapping[str, Callable[[str], _Declared]]] = {
    "--range": _range,
    "--categories": read_choices,
    "--boolean": _truths,
}
# Which option a refusal names first, by what the file seems to hold; nothing follows from it.
_NAMED: Final = {
    NUMBERS: "--range",
    COMMAS: "--range",
    TRUTHS: "--boolean",
    WORDS: "--boolean",
    DATES: "--leave-out",
}
