"""A change of the authority, made whole or not at all, wherever it is interrupted.

    authority/.draft/    where a change is written; it has no effect, and the next command erases it
    authority/change/    a whole change, in force, whose files are not in their places yet

Both are laid out as the federation's folder: `authority/roster.json` below them goes to `authority/roster.json`. A
change comes into force when `.draft` is renamed to `change`, which is one step on the disk. After that its files are
put into their places, and the newest roster and list are handed out. When all are there, `change` is erased. Whoever
opens the authority next first completes a change that lies there: every file of it is put into its place again, which
changes nothing if it lies there already.

Guarantee: a command that was killed, or whose disk failed, leaves either the earlier state, or a change that the next
command of any kind completes. No command sees half of a change.

Does NOT say who wrote a change: as with all unencrypted files in the authority's folder, whoever can write there can
have a change put into place. Until a change is in its place, a new kit's key file lies beside the kit in it. Does NOT
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
# These come last, the list of revocations first: revoked keys are refused before new ones are accepted.
_LAST: Final = {REVOKED: 1, ROSTER_FILE: 2}


def kit_of(root: Path, name: str) -> Path:
    """Return where a party's kit lies under a federation's folder, or under a change."""
    return root / SERVER if name == SERVER else root / "silos" / name


@contextmanager
def drafted(root: Path) -> Iterator[Path]:
    """Give a folder to write a change into, and erase it at the end; without `put_in_place` nothing has changed."""
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
    """Put a draft into force, and all of it into its place.

    Args:
        root: The federation's folder.
        draft: The folder that `drafted` gave.
        what: The verb and the name, which `pending` returns if the rest is interrupted.

    Raises:
        ConfigError: When it is in force, but not all of it could be put into its place.
    """
    replace_file(draft / _WHAT, json.dumps(what).encode("ascii") + b"\n")
    for path in _below(draft):
        if path.is_dir():
            sync_folder(path)
    draft.rename(draft.with_name(_CHANGE))
    sync_folder(draft.parent)
    finish(root)


def pending(root: Path) -> str | None:
    """Return the verb and the name of a change that is in force but not in its place; None if there is none.

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
    """Put a change that is in force into its place, if one was interrupted.

    If a kit was moved away in the meantime, it is not made again: a renewed certificate alone is no kit.

    Returns:
        What the change was; None if there was none.

    Raises:
        ConfigError: When the disk fails. The change stays in force, and the next command completes it.
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
        change.rename(draft)  # erased there: the rest of a partly erased change would be put into place once more
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
        AggregationRefused: When the authority did not sign the roster that lies there.
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
    """Yield everything below a folder; a folder that cannot be listed raises, where `rglob` would skip it."""
    for path in sorted(folder.iterdir()):
        yield path
        if path.is_dir():
            yield from _below(path)


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, if missing, for their owner alone, and make sure that they are on disk."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        private_folder(folder)
        sync_folder(folder.parent)
