"""Where a silo keeps the secrets of secure aggregation between two messages: a file a run, sealed, under a lock.

Guarantee: when the block of `protocol` ends without an error, the new state is on disk, and the ledger knows of every
act that must stay done; only then can a handler return the stage's message. A process killed before that has sent
nothing; killed after, it cannot be made to do the stage again. Two processes never act on one state at once. What a
stage refused leaves the file as it was, and those of other runs.

The file may be lost, or an older copy put back: the state is written first, then the ledger, so a ledger that knows of
an act that the state does not know of shows that. `fedmodel.secagg` then takes part in nothing that needs its secrets,
until the next window.

The last answer lies in the same file as the state that it led to, so that there is never the one without the other.
Asked the very same again, since the answer or the server that waited for it was lost, `answer` gives the very same
bytes; `answered` gives them or nothing, and does no stage. Whoever asks learns nothing that it could not have had
before. Anything else is a stage, and refused if it was done. Where one question asks for two stages, each is on disk
and in the ledger before the next begins, which may replace what tells of it; asked again after a kill between the two,
the second follows on the first one's answer. Only the last answer is kept, and only until the next stage: a share that
was revealed, or an update that was masked, stays in the file, sealed, for that long.

A secret that a stage erased is gone from the file that replaces the old one. What a run that ended in the middle left
behind is erased when the next one's first keys are made, all but how far it had come.

Does NOT erase the blocks that a disk may keep of an old file: whoever has them and the identity key reads them. Does
NOT notice a backup of file, ledger and ledger's head that were put back together: whoever keeps a newer head does.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fedmodel.crypto import KEY_SIZE, SealingKey, Suite, digest, seal
from fedmodel.errors import CryptoError
from fedmodel.ledger import Ledger
from fedmodel.provision import Kit
from fedmodel.secagg import Participant, Progress
from fedmodel.system.durable import replace_file

_LENGTH_SIZE: Final = 8
_FIRST: Final = b"fedmodel/v1/first-stage-asked"


@dataclass
class _Kept:
    """What the file holds: the state, and the last answer with the hash of what was asked."""

    silo: Participant
    asked: bytes = bytes(KEY_SIZE)
    answer: bytes = b""

    def answers(self, asked: bytes) -> bool:
        """Return whether the last answer is to this question."""
        return bool(self.answer) and self.asked == asked


@contextmanager
def protocol(kit: Kit, folder: Path, run: int, ledger: Ledger) -> Iterator[Participant]:
    """Open a silo's side of secure aggregation in one run, and keep what became of it.

    Args:
        kit: The silo's.
        folder: The silo's own.
        run: The run.
        ledger: The silo's own.

    Raises:
        CryptoError: When the state was not sealed by this silo for this run.
    """
    with _opened(kit, folder, run, ledger) as (kept, enter):
        kept.answer = b""  # the stage that begins here is a later one
        yield kept.silo
        enter()


def answer(
    kit: Kit,
    folder: Path,
    run: int,
    ledger: Ledger,
    asked: bytes,
    act: Callable[[Participant], bytes],
    then: Callable[[Participant, bytes], bytes] | None = None,
) -> bytes:
    """Do a stage once, and answer the very same question again with the very same bytes.

    Args:
        kit: The silo's.
        folder: The silo's own.
        run: The run.
        ledger: The silo's own.
        asked: Hash of all that was asked, 32 bytes.
        act: Does the stage, and returns its answer.
        then: Does a second stage that the same question asks for, given the first one's answer; returns both answers.
            Where it is refused, the first stays done.

    Raises:
        CryptoError: When the state was not sealed by this silo for this run.
    """
    with _opened(kit, folder, run, ledger) as (kept, enter):
        if not kept.answers(asked):
            first = asked if then is None else digest(_FIRST, asked)
            if not kept.answers(first):
                kept.answer, kept.asked = act(kept.silo), first
            if then is not None:
                enter()
                kept.answer, kept.asked = then(kept.silo, kept.answer), asked
        enter()
        return kept.answer


def answered(kit: Kit, folder: Path, run: int, ledger: Ledger, asked: bytes) -> bytes | None:
    """Return the last answer if it is to this very question, and None otherwise; no stage is done.

    As after `answer`, state and ledger are on disk when it returns an answer, wherever the process that did the stage
    was killed.

    Args:
        kit: The silo's.
        folder: The silo's own.
        run: The run.
        ledger: The silo's own.
        asked: Hash of all that was asked, 32 bytes.

    Raises:
        CryptoError: When the state was not sealed by this silo for this run.
    """
    if not _path(folder, run).exists():
        return None
    with _opened(kit, folder, run, ledger) as (kept, enter):
        if not kept.answers(asked):
            return None
        enter()
        return kept.answer


@contextmanager
def _opened(kit: Kit, folder: Path, run: int, ledger: Ledger) -> Iterator[tuple[_Kept, Callable[[], None]]]:
    """Open the file under its lock.

    The second thing given puts what became of it on disk: first the file, then the ledger.
    """
    path = _path(folder, run)
    with (folder / "aggregation.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for cut_short in folder.glob("aggregation-*.partial"):
            cut_short.unlink()  # of a process that was killed while it wrote
        kept = _read(kit, path, run, ledger.progress(str(run)))

        def enter() -> None:
            if not path.exists():
                for other in sorted(folder.glob("aggregation-*.state")):
                    _forget(kit, other)
            _write(kit, path, run, kept)
            ledger.advance(str(run), kept.silo.progress)

        yield kept, enter


def _forget(kit: Kit, path: Path) -> None:
    """Erase the secrets of another run; a file that cannot be read is left to whoever asks for its run."""
    number = path.stem.removeprefix("aggregation-")
    with suppress(CryptoError, ValueError):
        kept = _read(kit, path, int(number), Progress())
        kept.silo.forget()
        _write(kit, path, int(number), _Kept(kept.silo))


def _read(kit: Kit, path: Path, run: int, known: Progress) -> _Kept:
    """Return what was kept, or the beginning where nothing was; without an answer where it is older than is known."""
    if not path.exists():
        return _Kept(Participant(kit.identity, kit.roster, kit.policy, run, known=known))
    key, context = _seal_of(kit, run)
    data = key.open(path.read_bytes(), context)
    size = int.from_bytes(data[:_LENGTH_SIZE], "big")
    state, rest = data[_LENGTH_SIZE : _LENGTH_SIZE + size], data[_LENGTH_SIZE + size :]
    silo = Participant(kit.identity, kit.roster, kit.policy, run, state, known)
    return _Kept(silo) if silo.is_put_back else _Kept(silo, rest[:KEY_SIZE], rest[KEY_SIZE:])


def _write(kit: Kit, path: Path, run: int, kept: _Kept) -> None:
    key, context = _seal_of(kit, run)
    state = kept.silo.state()
    data = len(state).to_bytes(_LENGTH_SIZE, "big") + state + kept.asked + kept.answer
    replace_file(path, seal(Suite.CLASSIC, key.public, data, context))


def _path(folder: Path, run: int) -> Path:
    return folder / f"aggregation-{run}.state"


def _seal_of(kit: Kit, run: int) -> tuple[SealingKey, bytes]:
    """Return what a run's state is sealed under, and bound to."""
    context = b"fedmodel/v1/aggregation-state-2" + run.to_bytes(8, "big")
    return SealingKey(Suite.CLASSIC, kit.identity.derive(b"fedmodel/v1/state", context), context), context
