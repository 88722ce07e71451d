"""What an entry of a ledger is.

    create      first of all, whose ledger it is; then each budget scope: data set, unit, adjacency, delta, cap, order
    reserve     all that a run may do, before anything is done for it: its plan, and beside it other events, if any
    charge      what one round will do, of which part of the reservation, before any record is read for it
    void        by a person: the newest charge of all, if no noised byte of it left, as far as entries say whether an
                update was masked for it; or the part of a reservation that is not taken. By the silo itself, in a form
                of its own (`lapse_body`): a whole reservation that lapsed
    override    a person's change of a scope's cap, with who and why
    checkpoint  to whom a signed head was given
    audit       what somebody found or signed off; with a run, how far the silo came in its secure aggregation, and that
                it has ended and with which model (`COUNTERSIGNED`)

The rows hold events, never an epsilon: epsilon is derived by replay (`fedmodel.privacy.accounting`).

Which entry may follow which is for `fedmodel.ledger.standing` to say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from typing import Any, Final, Literal, Self, get_args

from fedmodel.crypto import SigningKey, digest, verify
from fedmodel.errors import CryptoError, LedgerError, LedgerTampered
from fedmodel.ledger.scope import Admission, Scope
from fedmodel.privacy.events import Event, event_to_json
from fedmodel.privacy.mechanisms import event_from_json
from fedmodel.secagg.progress import Progress

ByPart = int | list[int]
"""A figure of each part of a run, in order; of a run of one part, as most are, the figure alone."""

Kind = Literal["create", "reserve", "charge", "void", "checkpoint", "audit", "override"]
KINDS: Final = get_args(Kind)
AGGREGATION_SUBJECT: Final = "secure aggregation"
NOTHING_BEFORE: Final = bytes(32)
COUNTERSIGNED: Final = "run-countersigned"
"""The subject of the entry by which a silo countersigns its ledger at a run's end, for that run and one model.

Its signature covers, by the chain, every entry before it. After it no round of the run is charged, and no charge of it
is voided: the entries up to it are all that the run has here. A run has one, so it is for one model. At least one of
its charges stands: a silo that gave nothing to a run says nothing of its model.

Does NOT say that the model came out of the run: a silo is told its hash, and never sees what others added to it. What
it does know of models stands in the keys of its charges, each a hash of the model that a round began from.
"""


_LABEL: Final = b"fedmodel/v1/ledger-entry"
VERSION: Final = 1
HASH: Final = re.compile("[0-9a-f]{64}")
RUN_NAME: Final = re.compile("[a-z0-9][a-z0-9-]{0,99}")
"""What a run may be called at its server. A silo keeps it for people to read, and goes by the run's number."""


@dataclass(frozen=True)
class Entry:
    """One row.

    Attributes:
        sequence: From 1.
        time: UTC, to the millisecond, as ISO 8601.
        scope: The scope's name, None where it is about none.
        run: The run, None where it is about none.
        round: The round, None where it is about none.
        kind: What it is.
        key: Idempotency key: no two entries have one alike.
        body: Canonical JSON.
        cap: Of the scope, in millionths, after this entry; 0 without a scope, like the next two.
        reserved: Of it, for plans.
        spent: Of that, for rounds.
        previous: Hash of the entry before; zeros for the first.
        signature: The silo's, over the hash.
    """

    sequence: int
    time: str
    scope: str | None
    run: str | None
    round: int | None
    kind: Kind
    key: str | None
    body: str
    cap: int
    reserved: int
    spent: int
    previous: bytes
    signature: bytes = b""

    @cached_property
    def document(self) -> bytes:
        """The canonical JSON of everything but the signature: what is hashed, and a leaf of the Merkle tree."""
        figures = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "signature"}
        return canonical({**figures, "previous": self.previous.hex()}).encode()

    @cached_property
    def hash(self) -> bytes:
        """What the next entry is chained to."""
        return digest(_LABEL, self.document)

    @cached_property
    def content(self) -> dict[str, Any]:
        """The body, read.

        Raises:
            LedgerTampered: When it is not canonical JSON of an object.
        """
        try:
            content = json.loads(self.body)
            is_canonical = isinstance(content, dict) and canonical(content) == self.body
        except (ValueError, RecursionError) as error:
            raise LedgerTampered("its body is not JSON", self.sequence) from error
        if not is_canonical:
            raise LedgerTampered("its body is not a canonical JSON object", self.sequence)
        return dict(content)

    def check_types(self) -> None:
        """Refuse a row whose columns are of other kinds than this class says; a file can hold any.

        Raises:
            LedgerTampered: When one is.
        """
        words = (self.scope, self.run, self.key)
        numbers = (self.sequence, self.cap, self.reserved, self.spent, 0 if self.round is None else self.round)
        texts = (self.time, self.kind, self.body, *("" if word is None else word for word in words))
        hashes = (self.previous, self.signature)
        if not (
            all(type(number) is int for number in numbers)
            and all(type(text) is str and text.isascii() for text in texts)
            and all(type(value) is bytes for value in hashes)
        ):
            raise LedgerTampered("one of its columns is of another type than it was written in")

    def sign(self, key: SigningKey) -> Self:
        """Return the entry with its owner's signature."""
        return replace(self, signature=key.sign(_LABEL, self.hash))

    def check_signature(self, public: bytes) -> None:
        """Refuse an entry that its owner did not sign.

        Raises:
            LedgerTampered: When it is one.
        """
        try:
            _verify_once(public, self.hash, self.signature)
        except CryptoError:
            raise LedgerTampered("its signature is not the silo's", self.sequence) from None


@lru_cache(maxsize=1 << 15)
def _verify_once(public: bytes, hashed: bytes, signature: bytes) -> None:
    """Check a signature; one that was found right is not checked again by this process, and a wrong one is."""
    verify(public, _LABEL, hashed, signature)


@lru_cache(maxsize=1 << 12)
def entry_of(row: tuple[Any, ...]) -> Entry:
    """Return the entry of a row, with what was computed of it before; nothing of it is checked yet."""
    return Entry(*row)


def canonical(document: Mapping[str, object]) -> str:
    """Return the one JSON of a document: sorted keys, no spaces, no NaN, ASCII."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)


def origin_of(silo: str) -> str:
    """Return the origin of a silo's signed heads."""
    return f"fedmodel/v1/ledger/{silo}"


def genesis(silo: str, public: bytes, nonce: bytes) -> str:
    """Return the body of a ledger's first entry; the nonce tells two ledgers of one silo apart."""
    return canonical({"silo": silo, "key": public.hex(), "nonce": nonce.hex(), "version": VERSION})


def scope_body(scope: Scope) -> str:
    """Return the body of the entry that creates a scope."""
    return canonical(asdict(scope))


def by_part(figures: Sequence[int]) -> ByPart:
    """Return one figure for each part of a run as an entry says it: alone where the run has one part.

    >>> by_part([4]), by_part([4, 0])
    (4, [4, 0])
    """
    return figures[0] if len(figures) == 1 else list(figures)


def reserve_body(
    plan: Event,
    scenario: str,
    admitted: Admission,
    cost: ByPart,
    besides: Sequence[Event] = (),
    until: str = "",
    name: str = "",
) -> str:
    """Return the body of a reservation; one with a time, `until`, may lapse from then on."""
    content = {"admitted": admitted, "cost": cost, "event": json.loads(event_to_json(plan)), "scenario": scenario}
    if besides:
        content["besides"] = [json.loads(event_to_json(event)) for event in besides]
    content |= {key: said for key, said in (("name", name), ("until", until)) if said}
    return canonical(content)


def charge_body(event: Event, taken: ByPart, part: int = 0) -> str:
    """Return the body of a charge of one part, after which so many steps of each part of its run are taken."""
    content = {"event": json.loads(event_to_json(event)), "taken": taken}
    return canonical(content if isinstance(taken, int) else {**content, "part": part})


def reserved_parts(content: Mapping[str, Any]) -> tuple[Event, ...]:
    """Return the parts that a reservation's body holds: the plan, then what else its run may do.

    Raises:
        LedgerError: When one of them is no event, or the list of others is empty.
    """
    others = content.get("besides", [])
    if type(others) is not list or ("besides" in content and not others):
        raise LedgerError("a run reserves a plan, and beside it a list of events or nothing")
    return tuple(event_from_json(canonical(one)) for one in (content["event"], *others))


def figures_of(said: object, parts: int) -> tuple[int, ...]:
    """Return the figures that an entry says of a run's parts.

    Raises:
        LedgerError: When it does not say one whole number for each.
    """
    found = said if type(said) is list and parts > 1 else [said]
    if len(found) != parts or not all(type(one) is int for one in found):
        raise LedgerError(f"a run of {parts} parts has one whole number for each, where {said!r} is said")
    return tuple(found)


def progress_of(entry: Entry) -> Progress:
    """Return what an entry says of a run's secure aggregation.

    Raises:
        ValueError: When it says nothing that it could.
    """
    fields = {name: value for name, value in entry.content.items() if name != "subject"}
    if entry.round != fields.get("round"):
        raise ValueError("its round is another than the one that it tells of")
    return Progress.from_fields(fields)


def progress_body(progress: Progress) -> str:
    """Return the body of the entry that says how far a run's secure aggregation came."""
    return canonical({**progress.to_fields(), "subject": AGGREGATION_SUBJECT})


def void_body(of: int, reason: str, taken: ByPart) -> str:
    """Return the body of a void, after which so many steps of each part of the run are taken."""
    return canonical({"of": of, "reason": reason, "taken": taken})


def lapse_body(of: int, until: str, taken: ByPart) -> str:
    """Return the body by which a silo gives a reservation back that lapsed at a time, and of which nothing is taken.

    It is a `void` by its column: a file's own rules fix what may stand there, and ledgers of before have to take it.
    """
    return canonical({"of": of, "taken": taken, "until": until})


def is_lapse(content: Mapping[str, Any]) -> bool:
    """Return whether a void's body is one that a silo entered by itself, of a reservation that lapsed."""
    return "until" in content


def told_time(moment: datetime) -> str:
    """Return a moment as entries say it.

    >>> told_time(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    '2026-01-02T03:04:05.000+00:00'
    """
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")


def countersigned_body(scenario: str, model: str, code: str) -> str:
    """Return the body of the entry that countersigns a run's end."""
    return canonical({"subject": COUNTERSIGNED, "scenario": scenario, "model": model, "code": code})
