"""A change of the authority's that is cut short at any step: the same command ends it, and all kits agree."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from fedmodel.config import read_scenario
from fedmodel.crypto.certificates import Authority, Purpose, check_issued, check_revocations, fingerprint, serial_number
from fedmodel.crypto.renewing import tls_key_hash
from fedmodel.errors import ConfigError, FedmodelError
from fedmodel.provision import changing, read_federation_roster, read_kit
from fedmodel.provision.authority import Change, add, renew, revoke, rotate, show
from fedmodel.provision.identity import open_identity
from fedmodel.system.durable import failed
from tests.conftest import TINY
from tests.federations import MASKED, SILOS, Federation, federation, pristine

__all__ = ["federation", "pristine"]

MAKES = ("rename", "replace", "rmdir")
"""The calls after which a disk has another state under a name that counts."""

Verb = Callable[[Federation], Change]
EAST = (TINY + MASKED).replace('"west"]', '"west", "east"]')


def _add(one: Federation) -> Change:
    path = one.root.parent / "east.toml"
    path.write_text(EAST)
    return add(one.root, "east", one.opener(), scenarios=[read_scenario(str(path))])


VERBS: dict[str, Verb] = {
    "add east": _add,
    "rotate north": lambda one: rotate(one.root, "north", one.opener()),
    "rotate server": lambda one: rotate(one.root, "server", one.opener()),
    "renew": lambda one: renew(one.root, [], one.opener()),
    "revoke west": lambda one: revoke(one.root, "west", "left", one.opener()),
}


class Killed(BaseException):
    """What nothing in the program catches."""


@contextmanager
def cut(at: int, error: BaseException, *, lasting: bool) -> Iterator[list[str]]:
    """Have a call that changes a disk raise instead, the `at`th, or all from that on. Gives the calls."""
    calls: list[str] = []

    def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *others: Any, **named: Any) -> Any:
            calls.append(f"{name} {path}")
            if len(calls) == at or (lasting and len(calls) > at > 0):
                raise error
            return real(path, *others, **named)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in MAKES:
            patch.setattr(os, name, counted(name, getattr(os, name)))
        yield calls


def traced(one: Federation, name: str, tmp_path: Path) -> tuple[int, int]:
    """Return how many steps a verb has, and which of them makes its change count."""
    whole = one.copy(tmp_path / "whole")
    with cut(0, Killed(), lasting=False) as calls:
        VERBS[name](whole)
    check_agreed(whole)
    counts = [number for number, call in enumerate(calls, 1) if call.startswith("rename") and ".draft" in call]
    assert len(counts) == 1
    return len(calls), counts[0]


def contents(root: Path) -> dict[str, bytes]:
    """Return all files, but for those of a draft, which counts for nothing."""
    files = (path for path in root.rglob("*") if path.is_file() and ".draft" not in path.parts)
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def check_agreed(one: Federation) -> None:
    """Every kit has one roster and one list, its own keys and certificate by it; and no other key of a name is good."""
    authority = one.kit("authority")
    roster = read_federation_roster(authority)
    listed = (authority / "revoked.pem").read_bytes()
    check_revocations(listed, (authority / "authority.pem").read_bytes())
    gone = {entry.serial_number for entry in x509.load_pem_x509_crl(listed)}
    assert (one.kit("server") / "revoked.pem").read_bytes() == listed
    for member in roster.members:
        kit = one.kit(member.name)
        assert (kit / "roster.json").read_bytes() == (authority / "roster.json").read_bytes(), member.name
        own = one.unlock(member.name)  # its keys are the roster's
        if member.role == "silo":
            assert member.identity == read_kit(kit).identity.public.hex()
        pem = (kit / "tls.pem").read_bytes()
        check_issued(pem, (kit / "authority.pem").read_bytes())
        assert fingerprint(pem) == member.certificate
        assert serial_number(pem) not in gone
        load_pem_private_key((kit / "tls.key").read_bytes(), own.tls_password.encode())
    keys = {member.name: member.tls for member in roster.members}
    for path in (authority / "certificates").glob("*/*.pem"):
        pem = path.read_bytes()
        assert (keys.get(path.parent.name) == tls_key_hash(pem)) != (serial_number(pem) in gone), path
    left = [path for path in one.root.rglob("*") if path.name in (".draft", "change") or path.suffix == ".partial"]
    assert left == []


def check_again(one: Federation, name: str) -> None:
    """The same command once more: it is done, or says that it was; and all agree."""
    there = name == "add east" and not (one.kit("authority") / "change").exists() and one.kit("east").exists()
    if there:  # killed while the copy of the change was erased
        with pytest.raises(ConfigError, match="is a member already"):
            VERBS[name](one)
    else:
        assert VERBS[name](one).roster == read_federation_roster(one.kit("authority"))
    check_agreed(one)
    silos = {"add east": {*SILOS, "east"}, "revoke west": {*SILOS} - {"west"}}.get(name, {*SILOS})
    assert {silo.name for silo in read_federation_roster(one.kit("authority")).silos} == silos


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_killed_before_its_change_counts_has_changed_nothing(
    name: str, pristine: Federation, federation: Federation, tmp_path: Path
) -> None:
    _, counts = traced(pristine, name, tmp_path)
    before = contents(federation.root)
    for at in range(1, counts + 1):
        shutil.rmtree(federation.kit("authority") / ".draft", ignore_errors=True)
        with cut(at, Killed(), lasting=True), pytest.raises(Killed):
            VERBS[name](federation)
        assert contents(federation.root) == before, at
    assert (federation.kit("authority") / ".draft").exists()
    check_again(federation, name)


@pytest.mark.parametrize("name", VERBS)
def test_the_same_command_ends_a_change_that_counts(name: str, pristine: Federation, tmp_path: Path) -> None:
    whole, counts = traced(pristine, name, tmp_path)
    for at in range(counts + 1, whole + 1):
        one = pristine.copy(tmp_path / "kits")
        with cut(at, Killed(), lasting=True), pytest.raises(Killed):
            VERBS[name](one)
        for kit in ("authority", "server", *SILOS):
            read_federation_roster(one.kit(kit))
        check_again(one, name)
        shutil.rmtree(one.root)


def test_another_verb_ends_it_first_and_says_so(pristine: Federation, tmp_path: Path) -> None:
    whole, counts = traced(pristine, "rotate north", tmp_path)
    for at in range(counts + 1, whole, 3):
        one = pristine.copy(tmp_path / "kits")
        with cut(at, Killed(), lasting=True), pytest.raises(Killed):
            VERBS["rotate north"](one)
        pending = (one.kit("authority") / "change").exists()
        change = VERBS["revoke west"](one)
        assert ("`authority rotate north` had been cut short, and is done now." in change.notes) == pending
        assert [gone.name for gone in change.roster.revoked] == ["north", "west"]
        check_agreed(one)
        shutil.rmtree(one.root)


def test_a_disk_that_fails_once_leaves_no_draft_and_is_told_what_counts(pristine: Federation, tmp_path: Path) -> None:
    whole, counts = traced(pristine, "revoke west", tmp_path)
    for at in range(1, whole + 1):
        one = pristine.copy(tmp_path / "kits")
        error = OSError(errno.EIO, "Input/output error", "kits/file")
        with cut(at, error, lasting=False), pytest.raises((FedmodelError, OSError)) as told:
            VERBS["revoke west"](one)
        said = failed(told.value) if isinstance(told.value, OSError) else str(told.value)
        assert "kits/file: Input/output error" in said
        if at <= counts:
            assert contents(one.root) == contents(pristine.root)
            assert not (one.kit("authority") / ".draft").exists()
        else:
            assert "goes on with it" in said or "is made and in its place" in said
        check_again(one, "revoke west")
        shutil.rmtree(one.root)


@pytest.fixture
def begun(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Federation]:
    """Kills a verb when its change counts and nothing of it is in its place."""

    def begin(name: str) -> Federation:
        with monkeypatch.context() as patch:
            patch.setattr(changing, "finish", raising(Killed()))
            with pytest.raises(Killed):
                VERBS[name](federation)
        assert (federation.kit("authority") / "change").is_dir()
        return federation

    return begin


def raising(error: BaseException) -> Callable[[object], NoReturn]:
    def call(_: object) -> NoReturn:
        raise error

    return call


def test_an_added_silos_kit_is_told_as_it_was_asked_for(begun: Callable[[str], Federation]) -> None:
    one = begun("add east")
    identity = one.kit("authority") / "change" / "silos" / "east" / "identity.age"
    sealed = identity.read_bytes()
    change = add(one.root, "east", one.opener(), passphrases=raising(Killed()))
    assert (one.kit("east") / "identity.age").read_bytes() == sealed
    assert change.changed == one.kit("east")
    told = "\n".join(change.notes)
    for words in (
        "`authority add east` had been cut short",
        "as it was asked for then",
        "largest_roster = 4",
        "NAME.key",
    ):
        assert words in told
    check_agreed(one)


def test_what_was_cut_short_is_shown(begun: Callable[[str], Federation]) -> None:
    assert show(begun("revoke west").root).notes == (
        "`authority revoke west` was cut short: the same command again goes on with it.",
    )


def test_nobody_but_who_opens_the_authority_goes_on_with_a_change(begun: Callable[[str], Federation]) -> None:
    one = begun("revoke west")
    before = contents(one.root)
    with pytest.raises(FedmodelError):
        revoke(one.root, "west", "left", one.opener("north"))
    assert contents(one.root) == before


def test_a_kit_that_was_taken_away_meanwhile_is_not_made_again(begun: Callable[[str], Federation]) -> None:
    one = begun("renew")
    shutil.rmtree(one.kit("north"))
    VERBS["revoke west"](one)
    assert not one.kit("north").exists()
    with pytest.raises(ConfigError, match="no member"):
        read_federation_roster(one.kit("authority")).member("west")


@pytest.mark.parametrize("what", [b"", b"{}", b'"revoke"x', b'"issue north"', b'"revoke \\u001b[2J"', None])
def test_a_change_that_does_not_say_what_it_is_is_not_put_in_its_place(
    what: bytes | None, begun: Callable[[str], Federation]
) -> None:
    one = begun("revoke west")
    path = one.kit("authority") / "change" / "what.json"
    if what is None:
        path.unlink()
    else:
        path.write_bytes(what)
    before = contents(one.root)
    for verb in (VERBS["revoke west"], lambda one: show(one.root)):
        with pytest.raises(ConfigError, match=r"what\.json: does not say which change"):
            verb(one)
    assert contents(one.root) == before


def test_revoking_who_is_out_hands_the_newest_out_again(federation: Federation, pristine: Federation) -> None:
    """As an earlier version left it, which wrote the authority's own roster first."""
    VERBS["revoke west"](federation)
    for name, file in (("server", "revoked.pem"), ("server", "roster.json"), ("north", "roster.json")):
        shutil.copy(pristine.kit(name) / file, federation.kit(name) / file)
    change = revoke(federation.root, "west", "another reason", federation.opener())
    assert change.roster.serial == 2
    assert any("'west' was put out already" in note and ": left. The newest roster" in note for note in change.notes)
    check_agreed(federation)
    with pytest.raises(ConfigError, match="'nobody' is no member"):
        revoke(federation.root, "nobody", "left", federation.opener())


def test_a_silo_may_come_back_after_its_kit_was_moved_away(federation: Federation) -> None:
    """And of a kit that an earlier version began and did not hand over, no certificate stays good."""
    VERBS["revoke west"](federation)
    scenario = read_scenario(str(federation.kit("authority") / "scenarios" / "tiny.toml"))
    before = contents(federation.root)
    with pytest.raises(ConfigError, match="silos/west: is there already, and is no member's; move it away") as told:
        add(federation.root, "west", federation.opener(), scenarios=[scenario])
    assert "name a new" not in str(told.value)
    assert contents(federation.root) == before
    shutil.rmtree(federation.kit("west"))
    own = open_identity(federation.kit("authority"), federation.opener())
    authority = Authority(own.seed, (federation.kit("authority") / "authority.pem").read_bytes())
    begun = authority.issue("west", Purpose.CLIENT, password="of tests " * 4)
    (federation.kit("authority") / "certificates" / "west" / "1.pem").write_bytes(begun.certificate)
    add(federation.root, "west", federation.opener(), scenarios=[scenario])
    check_agreed(federation)


@pytest.mark.parametrize("folder", ["certificates/west", "scenarios"])
def test_a_folder_that_cannot_be_listed_is_not_taken_for_an_empty_one(
    folder: str, federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a silo would be put out, and its certificate be good."""
    place, real = federation.kit("authority") / folder, os.listdir

    def listed(path: Any = ".") -> Any:
        if Path(path) == place:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "listdir", listed)
    before = contents(federation.root)
    with pytest.raises(PermissionError):
        VERBS["revoke west" if folder != "scenarios" else "add east"](federation)
    assert contents(federation.root) == before
