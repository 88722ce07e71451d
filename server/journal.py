"""What a run goes on from after its server was killed.

    checkpoint.age   after every round: the model, what its strategy keeps, who was charged for how many rounds, who
                     left, the round's line
    window.age       a window's adverts and shares, where secure aggregation is on
    answers/         every answer of the round at hand, in the order in which it was acted upon

A run that is taken up again does the round at hand once more, from its beginning. What was answered already is read
back in its order, so that the same windows, lists of survivors and sums follow from it; only what is still open is
asked, in the very words in which it was asked before. A silo gives the very same question the very same bytes, so
nobody is charged twice for one release, and no stage of secure aggregation is done twice.

Guarantee: an answer is on disk here before anything follows from it. The checkpoint is one file, replaced whole: there
is the last round or the one before, and never a part. Everything is an age file to the server's own key; in a
simulation, whose folder is its researcher's own with keys and model in it, nothing is sealed and no name has ".age".

Each file says inside which run and scenario it is of, and which file it is, the window's which window: one of another
run, or another one of this run, is refused by name. Which round was the last whole one lies elsewhere too, beside the
heads of silos' ledgers: an older checkpoint is refused by it, and where that was put back as well, each silo refuses a
round before the newest that its ledger was charged for.

One server a silo is taken for granted: of two, each pushes the other's last update out of the silo's outbox, and what
is asked again then is charged again. Does NOT say who wrote a file: whoever can write to the server's disk can seal
another model to its key. Does NOT hide from a thief how many answers there were.

Shapes: P parameters.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from flwr.app import Message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from numpy.typing import NDArray

from fedmodel import wire
from fedmodel.crypto import digest
from fedmodel.crypto.sealed import Opener, open_bytes, seal_bytes
from fedmodel.errors import CryptoError, ProtocolError
from fedmodel.ledger.entries import ByPart
from fedmodel.privacy.events import Event, event_to_json
from fedmodel.privacy.mechanisms import event_from_json
from fedmodel.secagg import join_messages, split_messages
from fedmodel.system.durable import erase_folder, replace_file

_VERSION: Final = 3
_READ: Final = (1, 2, 3)
"""Version 1 had no state of a strategy, which is read as none; versions 1 and 2 said each silo's event by itself."""
_LENGTH_SIZE: Final = 8
_LABEL: Final = b"fedmodel/v1/journal"
_CHECKPOINT: Final = "checkpoint"
_WINDOW: Final = "window"
_ANSWERS: Final = "answers"
_SEALED: Final = ".age"

Dealt = tuple[list[bytes], list[bytes]]


@dataclass(frozen=True)
class Checkpoint:
    """A run after a whole round, or after joining.

    Attributes:
        round_number: The round; 0 after joining.
        model_P: The model after it, float32 of shape `(P,)`.
        charges: By silo that takes part, what it charges for a round; of the first phase, where lots grow.
        charged: By silo, for how many rounds it said that it charged; of each phase, where lots grow.
        absent: Codes of the silos that did not join.
        withdrawn: Silos that are asked no more, and since when.
        failures: Rounds that failed closed.
        ended: Whether this is the run's last round.
        line: The round's line of metrics, empty after joining.
        secure: What secure aggregation stands on, as its rounds say; empty without it.
        lineages: By silo, of the state that it holds between rounds; of the others nothing is known.
        strategy: What the strategy keeps for the next round; bytes that it alone reads.
    """

    round_number: int
    model_P: NDArray[np.float32]
    charges: Mapping[str, Event]
    charged: Mapping[str, ByPart]
    absent: Mapping[str, str]
    withdrawn: Mapping[str, dict[str, str | int]]
    failures: int = 0
    ended: bool = False
    line: Mapping[str, object] = field(default_factory=dict)
    secure: Mapping[str, Any] = field(default_factory=dict)
    lineages: Mapping[str, str] = field(default_factory=dict)
    strategy: bytes = b""

    def to_bytes(self) -> bytes:
        """Return it as bytes: a length, JSON of that length, the strategy's state, and the model's words."""
        told = {name: value for name, value in vars(self).items() if name != "model_P"}
        told["charges"] = _together(self.charges)
        told["strategy"] = len(self.strategy)
        head = json.dumps({"version": _VERSION, **told}, sort_keys=True, allow_nan=False).encode()
        return len(head).to_bytes(_LENGTH_SIZE, "big") + head + self.strategy + self.model_P.astype("<f4").tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> Checkpoint:
        """Read back what `to_bytes` returned.

        Raises:
            ProtocolError: When it is something else, or of another version.
        """
        begin = _LENGTH_SIZE + int.from_bytes(data[:_LENGTH_SIZE], "big")
        try:
            told = json.loads(data[_LENGTH_SIZE:begin])
            version = told.pop("version")
            if version not in _READ:
                raise ProtocolError(
                    f"a checkpoint of version {version}, where this is version {_VERSION}; begin a new run"
                )
            end = begin + (told.pop("strategy") if version > 1 else 0)
            told["charges"] = _apart(told["charges"], version)
            model_P = np.frombuffer(data, dtype="<f4", offset=end).astype(np.float32)
            return cls(model_P=model_P, strategy=data[begin:end], **told)
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ProtocolError("a checkpoint is not one; its run cannot be taken up again") from error


def _together(charges: Mapping[str, Event]) -> list[list[Any]]:
    """Return charges as plain data: each event once, with the silos that charge it."""
    # One event object is written once; equal ones may be written otherwise, as 1 and 1.0 are.
    texts = {id(event): event_to_json(event) for event in {id(one): one for one in charges.values()}.values()}
    silos: dict[str, list[str]] = {}
    for silo, event in charges.items():
        silos.setdefault(texts[id(event)], []).append(silo)
    return [[text, whose] for text, whose in silos.items()]


def _apart(charges: Any, version: int) -> dict[str, Event]:
    """Read charges back."""
    if version < 3:
        charges = [[text, [silo]] for silo, text in charges.items()]
    found = ((event_from_json(text), whose) for text, whose in charges)
    return {silo: event for event, whose in found for silo in whose}


@dataclass(frozen=True)
class Seal:
    """What a deployed server's files are sealed with: its age recipient, and its key. Sensitive."""

    recipient: str
    opener: Opener


class _Files:
    """Files each replaced whole, and each of one run, one scenario and one place; sealed where there is a key."""

    def __init__(self, seal: Seal | None, run: int, scenario: bytes) -> None:
        self._seal = seal
        self._of = (run.to_bytes(8, "big"), scenario)
        self.suffix = "" if seal is None else _SEALED

    def read(self, path: Path, about: str = "") -> bytes:
        try:
            data = path.read_bytes() if self._seal is None else open_bytes(path.read_bytes(), self._seal.opener)
        except CryptoError as error:
            raise CryptoError(f"{path}: does not open with this server's key; its run cannot go on") from error
        head = self._head(path, about)
        if not data.startswith(head):
            raise ProtocolError(
                f"{path}: is of another run, scenario or round, or of an older version; put back the one that was"
                " there, or submit the scenario again, as a new run"
            )
        return data[len(head) :]

    def write(self, path: Path, data: bytes, about: str = "") -> None:
        whole = self._head(path, about) + data
        replace_file(path, whole if self._seal is None else seal_bytes(whole, (self._seal.recipient,)))

    def _head(self, path: Path, about: str) -> bytes:
        return digest(_LABEL, *self._of, path.name.encode(), about.encode())


class Journal:
    """A run's own memory on disk.

    Args:
        folder: Of the run.
        seal: What its files are sealed with; None in a simulation, where they lie open.
        run: The run's number.
        scenario: The hash of its scenario.
        newest: The file that says which round was the last whole one, in another folder.
    """

    def __init__(self, folder: Path, seal: Seal | None, run: int, scenario: bytes, newest: Path) -> None:
        self._files = _Files(seal, run, scenario)
        self._checkpoint, self._window = (folder / f"{name}{self._files.suffix}" for name in (_CHECKPOINT, _WINDOW))
        self._answers = folder / _ANSWERS
        self._newest = newest
        self._round, self._ask = 0, 0
        self._kept_window: object = None
        self._answers.mkdir(mode=0o700, exist_ok=True)

    def load(self) -> tuple[Checkpoint, Dealt | None] | None:
        """Return the last whole round, and the window that lies beside it; None where the run has not begun.

        Raises:
            CryptoError: When a file does not open with this server's key.
            OSError: When one cannot be read; that is no verdict on the run.
            ProtocolError: When a file is not what it should be, is of another run or window, or is older than the last
                whole round.
        """
        if not self._checkpoint.exists():
            return None
        kept = Checkpoint.from_bytes(self._files.read(self._checkpoint))
        self._check_newest(kept.round_number)
        window = kept.secure.get("window")
        needed = window and not kept.ended
        dealt = _dealt_from(self._files.read(self._window, str(window))) if needed else None
        self._kept_window = window
        return kept, dealt

    def keep(self, checkpoint: Checkpoint, dealt: Dealt | None = None) -> None:
        """Put a round on disk as the last whole one: when this returns, the run goes on from there."""
        window = checkpoint.secure.get("window")
        # Before the checkpoint that names it; one that names the window before does not need that any more.
        if dealt is not None and window != self._kept_window:
            self._files.write(self._window, _dealt_to(dealt), str(window))
            self._kept_window = window
        self._files.write(self._checkpoint, checkpoint.to_bytes())
        self._newest.parent.mkdir(parents=True, exist_ok=True)
        replace_file(self._newest, str(checkpoint.round_number).encode())

    def _check_newest(self, round_number: int) -> None:
        """Refuse a checkpoint from before the last round that was whole."""
        try:
            newest = int(self._newest.read_bytes())
        except FileNotFoundError:
            return  # killed right after the first checkpoint
        except ValueError as error:
            raise ProtocolError(f"{self._newest}: says no round") from error
        if round_number < newest:
            raise ProtocolError(
                f"{self._checkpoint}: is of round {round_number}, and round {newest} of the run was whole: an older one"
                " was put back. Put the newest in its place; if that is lost, submit the scenario again, as a new run"
            )

    def begin(self, round_number: int) -> None:
        """Begin a round, or begin it once more: forget the answers of every other."""
        self._round, self._ask = round_number, 0
        for path in self._answers.iterdir():
            if not path.name.startswith(f"{round_number:07d}-") or path.suffix != self._files.suffix:
                path.unlink()

    def asking(self) -> Answers:
        """Begin the round's next question to its silos, and return the answers to it, those that there are."""
        self._ask += 1
        found = self._answers_to(self._ask)
        if self._ask > 1:
            found.begin()
        if not self._answers_to(self._ask + 1).are_begun():
            found.forget_lost()
        return found

    def ask_again(self) -> None:
        """Forget who refused the round's last question or was late: nothing followed from it, and the run ends there.

        What was in a silo's way may be mended when the run is taken up again. Answers that are none but refusals, to
        earlier questions, stay: lists of survivors that silos have signed follow from them.
        """
        self._answers_to(self._ask).forget_refusals()

    def _answers_to(self, ask: int) -> Answers:
        return Answers(self._files, self._answers, f"{self._round:07d}-{ask:03d}")

    def start_over(self) -> None:
        """Forget the answers of the round at hand: they are of silos' keys that are none any more."""
        erase_folder(self._answers)
        self._answers.mkdir(mode=0o700, exist_ok=True)


class Answers:
    """What came to one question, silo by silo, in the order in which it was acted upon.

    Each answer is a file with its number; number 0 says no more than that the question was begun.
    """

    def __init__(self, files: _Files, folder: Path, name: str) -> None:
        self._files, self._folder, self._name = files, folder, name
        self._count = 0

    def begin(self) -> None:
        """Put on disk that the question was begun."""
        if not self.are_begun():
            self._files.write(self._path(0), b"")

    def are_begun(self) -> bool:
        """Return whether the question was begun, or has an answer."""
        return any(self._folder.glob(f"{self._name}-*{self._files.suffix}"))

    def told(self) -> list[tuple[str, Message | None]]:
        """Return who answered what before the run was taken up again; None is an answer that did not come in time."""
        found = []
        for number, path in self._kept():
            silo, reply = self._read(path)
            found.append((silo, reply))
            self._count = number
        return found

    def forget_refusals(self) -> None:
        """Forget answers that did not come, and those that are errors."""
        for _, path in self._kept():
            _, reply = self._read(path)
            if reply is None or reply.has_error():
                path.unlink()

    def forget_lost(self) -> None:
        """Forget errors of Flower's; what a silo refused stays, and so does what did not come in time."""
        for _, path in self._kept():
            _, reply = self._read(path)
            if reply is not None and reply.has_error() and wire.refusal_code(reply.error) == wire.LOST:
                path.unlink()

    def _kept(self) -> list[tuple[int, Path]]:
        """Return the files of answers, with their numbers, in their order."""
        paths = sorted(self._folder.glob(f"{self._name}-*{self._files.suffix}"))
        numbered = [(int(path.name.removesuffix(self._files.suffix).rpartition("-")[2]), path) for path in paths]
        return [(number, path) for number, path in numbered if number]

    def _read(self, path: Path) -> tuple[str, Message | None]:
        """Return whose answer a file has, and the answer."""
        head, _, data = self._files.read(path).partition(b"\n")
        return head.decode(), _unpacked(data)

    def _path(self, number: int) -> Path:
        return self._folder / f"{self._name}-{number:06d}{self._files.suffix}"

    def keep(self, silo: str, reply: Message | None) -> Message | None:
        """Put an answer on disk, and return it as it will be read back; act upon that, and not before.

        An answer that cannot be written down is none: it would stop every life of the run at the same place.
        """
        data = _packed(reply)
        self._count += 1
        self._files.write(self._path(self._count), silo.encode() + b"\n" + data)
        return _unpacked(data)


def forget(folder: Path) -> None:
    """Erase what a run that has its outcome does not need: answers, and the window."""
    erase_folder(folder / _ANSWERS)
    for name in (_WINDOW, f"{_WINDOW}{_SEALED}"):
        (folder / name).unlink(missing_ok=True)


def is_kept(folder: Path) -> bool:
    """Tell whether there is something in a simulated run's folder that it would go on from."""
    return any((folder / name).exists() for name in (_CHECKPOINT, _WINDOW, _ANSWERS))


def forget_all(folder: Path) -> None:
    """Erase what a simulated run went on from, once its summary is on disk: it is never taken up again."""
    forget(folder)
    (folder / _CHECKPOINT).unlink(missing_ok=True)


def _packed(reply: Message | None) -> bytes:
    """Return an answer as bytes, none where there is none or where Flower cannot write it down."""
    if reply is None:
        return b""
    try:
        data: bytes = message_to_proto(reply).SerializeToString()
        message_from_proto(ProtoMessage.FromString(data))
    except Exception:  # of any kind: what a node sends may inflate and not go back
        return b""
    return data


def _unpacked(data: bytes) -> Message | None:
    return message_from_proto(ProtoMessage.FromString(data)) if data else None


def _dealt_to(dealt: Dealt) -> bytes:
    adverts, shares = (join_messages(messages) for messages in dealt)
    return len(adverts).to_bytes(_LENGTH_SIZE, "big") + adverts + shares


def _dealt_from(data: bytes) -> Dealt:
    size = int.from_bytes(data[:_LENGTH_SIZE], "big")
    return split_messages(data[_LENGTH_SIZE : _LENGTH_SIZE + size]), split_messages(data[_LENGTH_SIZE + size :])
