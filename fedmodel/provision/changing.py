"""A change of the authority's, made whole or not at all, wherever it is cut short.

    authority/.draft/    where a change is written; it counts for nothing, and the next command erases it
    authority/change/    a whole change that is not in its place yet

Both have the federation's folder's own form: `authority/roster.json` below them goes to `authority/roster.json`. A
change begins to count when `.draft` is renamed to `change`: one step on the disk. After that its files are put in
their places and the newest roster and list are handed out; when all are there, `change` is erased. Whoever opens the
authority next goes on with a change that lies there, before anything else: every file of it is put in its place again,
which changes nothing where it lies there already.

Guarantee: a command that was killed, or that a disk failed, leaves what was before or a change that the next command of
any verb goes on with. No command sees half of one.

Does NOT say who wrote a change: as with all that lies in the clear in the authority's folder, whoever writes there can
have it put in its place. Until a change is in its place, a new kit's key file lies beside the kit in it. Does NOT
revoke a certificate of a draft that was erased: its key was erased with it, and no roster has it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from fedmodel.errors import ConfigError
from fedmodel.provision.identity import SEALED_IDENTITY
from fedmodel.provision.kits import CERTIFICATE, REVOKED, ROSTER_FILE, read_federation_roster
from fedmodel.provision.making import SERVER, erased_if_it_fails, private_folder
from fedmodel.system.durable import MISSING, erase_folder, failed, replace_file, sync_folder

AUTHORITY_FOLDER: Final = "authority"
_DRAFT: Final = ".draft"
_CHANGE: Final = "change"
_WHAT: Final = "what.json"
_VERB: Final = re.compile(r"(add|rotate|renew|revoke)( [a-z0-9-]+)*")
# What was revoked is refused before what is new is taken.
_LAST: Final = {REVOKED: 1, ROSTER_FILE: 2}


def kit_of(root: Path, name: str) -> Path:
    """Return where a party's kit lies under a federation's folder, or under a change."""
    return root / SERVER if name == SERVER else root / "silos" / name


@contextmanager
def drafted(root: Path) -> Iterator[Path]:
    """Give a folder to write a change into; unless `put_in_place` is called, nothing has changed. It is erased."""
    draft = root / AUTHORITY_FOLDER / _DRAFT
    erase_folder(draft)
    draft.mkdir(mode=0o700)
    with erased_if_it_fails(draft):
        private_folder(draft / AUTHORITY_FOLDER)
        yield draft
    try:
        erase_folder(draft)
    except OSError as error:
        raise ConfigError(
            f"{failed(error)}; the change is made and in its place, and a copy of it, which may hold keys, is left: the"
            f" next change erases {draft}"
        ) from error


def put_in_place(root: Path, draft: Path, what: str) -> None:
    """Make a draft count, and put all of it in its place.

    Args:
        root: The federation's folder.
        draft: As `drafted` gave it.
        what: The verb and the name, as `pending` returns them where the rest is cut short.

    Raises:
        ConfigError: When it counts, and not all of it could be put in its place.
    """
    replace_file(draft / _WHAT, json.dumps(what).encode("ascii") + b"\n")
    for path in _below(draft):
        if path.is_dir():
            sync_folder(path)
    draft.rename(draft.with_name(_CHANGE))
    sync_folder(draft.parent)
    finish(root)


def pending(root: Path) -> str | None:
    """Return the verb and the name of a change that counts and is not in its place; None where there is none.

    Raises:
        ConfigError: When it is not as it was written.
    """
    path = root / AUTHORITY_FOLDER / _CHANGE / _WHAT
    if not path.parent.is_dir():
        return None
    try:
        what = json.loads(path.read_bytes())
    except (*MISSING, ValueError):
        what = None
    if not isinstance(what, str) or not _VERB.fullmatch(what):
        raise ConfigError(f"{path}: does not say which change lies beside it; restore {path.parent} from a copy")
    return what


def finish(root: Path) -> str | None:
    """Put a change that counts in its place, where one was cut short.

    A kit that was taken away meanwhile is not made again: a renewed certificate alone is none.

    Returns:
        What it was; None where there was none.

    Raises:
        ConfigError: When the disk fails. The change still counts, and the next command goes on with it.
    """
    what = pending(root)
    if what is None:
        return None
    change, draft = (root / AUTHORITY_FOLDER / name for name in (_CHANGE, _DRAFT))
    try:
        files = [path for path in _below(change) if path.is_file() and path != change / _WHAT]
        for path in sorted(files, key=lambda one: (_LAST.get(one.name, 0), one)):
            place = root / path.relative_to(change)
            if path.name == CERTIFICATE and not place.parent.is_dir() and not (path.parent / SEALED_IDENTITY).exists():
                continue
            _make_folder(place.parent)
            replace_file(place, path.read_bytes())
        hand_out(root)
        erase_folder(draft)
        change.rename(draft)  # erased there: of a change erased in part, the rest would be put in place once more
        sync_folder(draft.parent)
    except OSError as error:
        raise ConfigError(
            f"{failed(error)}; the change, `authority {what}`, is made and not yet everywhere: the same command, or any"
            " other change of this authority, goes on with it. A kit that cannot be written may be moved away before"
        ) from error
    return what


def hand_out(root: Path) -> None:
    """Put the newest roster into every member's kit that is here, and the newest list of revocations into the server's.

    Raises:
        ConfigError: When the authority has no roster.
        AggregationRefused: When the roster that lies there is not the authority's.
    """
    newest = {name: (root / AUTHORITY_FOLDER / name).read_bytes() for name in (REVOKED, ROSTER_FILE)}
    for member in read_federation_roster(root / AUTHORITY_FOLDER, expired_too=True).members:
        kit = kit_of(root, member.name)
        if not kit.is_dir():
            continue
        for name in newest if member.name == SERVER else (ROSTER_FILE,):
            if not (kit / name).is_file() or (kit / name).read_bytes() != newest[name]:
                replace_file(kit / name, newest[name])


def _below(folder: Path) -> Iterator[Path]:
    """Yield all that is below a folder; what cannot be listed raises, which `rglob` leaves out."""
    for path in sorted(folder.iterdir()):
        yield path
        if path.is_dir():
            yield from _below(path)


def _make_folder(folder: Path) -> None:
    """Make a folder, and those above it, its owner's alone and on disk, where they are not there."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        private_folder(folder)
        sync_folder(folder.parent)
