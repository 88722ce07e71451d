"""What the server remembers of every silo's ledger: its newest signed head.

Guarantee: a silo whose ledger does not extend the head that it gave last, since entries were deleted or changed, or a
backup was put back, is refused: a shorter ledger does not join, and of any other the update is in no sum. Heads are on
disk before the round that they came with counts. A process that is killed before, or whose disk fails, has handed each
to the system at once, and the next begins with it; a machine that loses power before that has the heads of the round
before.

Does NOT see entries: a head is a number and a hash. Does NOT help against a server that forgets on purpose.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from fedmodel.errors import LedgerTampered
from fedmodel.ledger import origin_of
from fedmodel.ledger.heads import Proven, follow, open_head
from fedmodel.secagg import Roster
from fedmodel.system.durable import naming, replace_file, synced_together

COMING: Final = ".coming"
"""What heads stand in until each has its file; no silo's name."""


class KnownHeads:
    """The heads of a federation's silos.

    Args:
        folder: Where they are kept, a file a silo.
        roster: Whose keys they are signed with.
    """

    def __init__(self, folder: Path, roster: Roster) -> None:
        self._folder = folder
        self._keys = {member.name: member.key for member in roster.members}
        folder.mkdir(parents=True, exist_ok=True)
        self._coming: dict[str, bytes] | None = None
        self._keep(self._left_behind())
        self._before = {silo: self.known(silo) for silo in self._keys}

    def check(self, silo: str, head: bytes) -> None:
        """Refuse a head that the silo of this name did not sign, or that is of a ledger gone back.

        It does not show who brings it: a head is made to be handed out.

        Raises:
            LedgerTampered: When it did not, or it is.
        """
        if silo not in self._keys:
            raise LedgerTampered("a head came from no silo of the roster")
        origin, key = origin_of(silo), self._keys[silo]
        now = open_head(head, origin, key)
        try:
            known = open_head(self.known(silo), origin, key)
        except LedgerTampered:
            return  # none yet, or of keys that were rotated
        if now.size < known.size or (now.size == known.size and now.root != known.root):
            raise LedgerTampered(
                f"{origin}: its ledger of {now.size} entries is not the one whose head of {known.size} is kept here"
            )

    def known(self, silo: str) -> bytes:
        """Return the newest head of a silo's ledger, empty where none came yet."""
        if self._coming is not None and silo in self._coming:
            return self._coming[silo]
        path = self._folder / silo
        return path.read_bytes() if path.exists() else b""

    @contextmanager
    def kept_together(self) -> Iterator[None]:
        """Put the heads that are followed in the block on disk at its end, with one sync, also where it fails.

        Each is handed to the system as it is followed, so that one who is killed meanwhile forgets none.
        """
        coming: dict[str, bytes] = {}
        self._coming = coming
        try:
            yield
        finally:
            self._coming = None
            self._keep(coming)

    def _keep(self, coming: Mapping[str, bytes]) -> None:
        """Put heads on disk, and what stood for them meanwhile away."""
        with synced_together():
            for silo, note in coming.items():
                replace_file(self._folder / silo, note)
        (self._folder / COMING).unlink(missing_ok=True)

    def _note(self, silo: str, note: bytes) -> None:
        """Hand a head to the system, which has it even if this process ends at once."""
        path = self._folder / COMING
        with naming(path), path.open("ab") as file:
            file.write(f"{silo} {note.hex()}\n".encode())

    def _left_behind(self) -> dict[str, bytes]:
        """Return the heads that a killed process had followed, and not yet put on disk one by one."""
        path, found = self._folder / COMING, dict[str, bytes]()
        for line in path.read_bytes().decode(errors="replace").splitlines() if path.exists() else ():
            silo, _, text = line.partition(" ")
            try:
                note = bytes.fromhex(text)
                open_head(note, origin_of(silo), self._keys[silo])
                self.check(silo, note)
            except (KeyError, ValueError, LedgerTampered):
                continue  # half a line, of a silo or of keys that are gone, or no newer than what is on disk
            found[silo] = note
        return found

    def follow(self, silo: str, head: bytes) -> None:
        """Take the head that a silo's update came with: of its ledger with one charge more, at least.

        The head that was the newest when this process began is taken once more: an answer that was acted upon before a
        run was taken up again.

        Raises:
            LedgerTampered: When it is not the silo's, or does not extend the last by an entry.
        """
        key = self._keys.get(silo)
        if key is None:
            raise LedgerTampered("a head came from no silo of the roster")
        last, origin = self.known(silo), origin_of(silo)
        proven = Proven.from_bytes(head)
        if last and proven.note == last == self._before[silo]:
            return
        known = open_head(last, origin, key) if last else None
        head_now = follow(proven, origin, key, known)
        if known is not None and head_now.size == known.size:
            raise LedgerTampered(f"{origin}: an update came with the head that came with the one before")
        if self._coming is None:
            replace_file(self._folder / silo, proven.note)
        else:
            self._note(silo, proven.note)
            self._coming[silo] = proven.note
