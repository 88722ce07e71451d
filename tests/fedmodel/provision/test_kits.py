"""Reading a deployed kit: locked until it is unlocked, and refused when others can get at it."""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fedmodel.crypto.sealed import opener_from_key_file, recipient_of, seal_bytes
from fedmodel.errors import ConfigError, CryptoError
from fedmodel.provision import (
    is_kit,
    is_sealed,
    read_federation_roster,
    read_identity,
    read_kit,
    read_law,
    read_roster,
    unlock,
    unlocked,
)
from fedmodel.provision.identity import identity_text, open_identity
from tests.federations import Federation, federation, pristine

__all__ = ["federation", "pristine"]


def test_a_sealed_kit_is_locked_until_it_is_unlocked(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    kit = federation.kit("north")
    for read in (read_kit, read_identity, unlocked):
        with pytest.raises(ConfigError, match=r"north: is sealed; unlock it with --key-file or a passphrase"):
            read(kit)
    assert is_sealed(kit)
    assert is_kit(kit)
    assert read_law(kit).name == "north"  # for this, and the roster, nothing has to be opened
    assert len(read_roster(kit)) == 3
    own = federation.unlock("north")
    assert unlocked(kit) is own
    assert read_identity(kit).public == own.identity.public
    monkeypatch.chdir(kit.parent)
    assert unlocked(Path("north")) is own  # however the folder is called
    for other in ("south", "server"):
        with pytest.raises(ConfigError, match="is sealed"):
            unlocked(federation.kit(other))


@pytest.mark.parametrize(
    ("name", "mode", "mended"),
    [
        (".", 0o750, "700"),
        (".", 0o701, "700"),
        ("identity.age", 0o640, "600"),
        ("tls.key", 0o604, "600"),
        ("node.key", 0o660, "600"),
    ],
)
def test_a_kit_that_others_can_get_at_is_refused(name: str, mode: int, mended: str, federation: Federation) -> None:
    kit = federation.kit("north")
    federation.unlock("north")
    path = (kit / name).resolve()
    path.chmod(mode)
    for read in (read_kit, lambda folder: unlock(folder, federation.opener("north"))):
        with pytest.raises(ConfigError) as refused:
            read(kit)
        assert str(refused.value) == (
            f"{path}: has mode {mode:04o}, which lets others at a kit's keys; run: chmod {mended} '{path}'"
        )
        assert refused.value.exit_status == 2
    path.chmod(int(mended, 8))
    read_kit(kit)


@pytest.mark.parametrize("name", [".", "identity.age", "tls.key", "node.key"])
def test_a_kit_of_another_account_is_refused(
    name: str, federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who owns it can change it, and its mode, at any time."""
    kit = federation.kit("north")
    path, opener = kit / name, federation.opener("north")
    real = Path.stat

    def stat(self: Path, **options: bool) -> os.stat_result:
        found = real(self, **options)
        fields = list(found)
        fields[4] = 4_000_001 if self == path else found.st_uid
        return os.stat_result(fields)

    monkeypatch.setattr(Path, "stat", stat)
    with pytest.raises(ConfigError) as refused:
        unlock(kit, opener)
    me = pwd.getpwuid(os.geteuid()).pw_name
    assert str(refused.value) == (
        f"{path}: belongs to 4000001, and this runs as {me}; run as its owner, or, if what is in it is to be trusted:"
        f" chown {me} {path}"
    )


def test_a_key_file_that_others_can_read_is_refused(federation: Federation) -> None:
    key = federation.root / "keys" / "north.key"
    key.chmod(0o644)
    with pytest.raises(ConfigError, match=r"north\.key.*0644"):
        opener_from_key_file(key)


def test_a_credential_of_systemd_may_be_its_groups_to_read_and_nothing_more(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Newer versions give it to the service's user by an access list, whose mask is shown as the group's bits."""
    key = federation.root / "keys" / "north.key"
    key.chmod(0o440)
    with pytest.raises(ConfigError, match="0440"):
        opener_from_key_file(key)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(federation.root / "silos"))
    with pytest.raises(ConfigError, match="0440"):
        opener_from_key_file(key)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(key.parent))
    unlock(federation.kit("north"), opener_from_key_file(key))
    for mode in (0o460, 0o444, 0o450, 0o604):
        key.chmod(mode)
        with pytest.raises(ConfigError, match=f"{mode:04o}"):
            opener_from_key_file(key)


def test_another_partys_keys_do_not_pass_for_ones_own(federation: Federation) -> None:
    north, south = federation.kit("north"), federation.kit("south")
    with pytest.raises(CryptoError):
        unlock(north, federation.opener("south"))
    shutil.copy(south / "identity.age", north / "identity.age")
    unlock(north, federation.opener("south"))
    with pytest.raises(ConfigError, match=r"says silo 'north', and the keys beside it are 'south''s"):
        read_kit(north)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("fedmodel identity v1", "fedmodel identity v2"), "holds no identity of fedmodel"),
        (lambda text: text.replace("# ed25519", "# ed25518"), "holds no identity of fedmodel"),
        (lambda text: text.replace("# mldsa65: ", "# mldsa65: 0"), "holds no identity of fedmodel"),
        (lambda text: text.replace("north of", "south of"), "they were rotated, and the kit is the old one"),
        (lambda text: text.replace("northern", "southern"), "keys of federation 'southern' beside a roster"),
        (lambda text: "", "holds no identity of fedmodel"),
        (lambda text: "\xff", "holds no identity of fedmodel"),
    ],
)
def test_an_identity_of_another_form_is_refused(
    change: Callable[[str], str], words: str, federation: Federation
) -> None:
    kit, opener = federation.kit("north"), federation.opener("north")
    own = open_identity(kit, opener)
    recipient = recipient_of((federation.root / "keys" / "north.key").read_text().splitlines()[-1])
    text = identity_text("north", "northern", own.seed, bytes(32), own.age_secret)
    sealed = seal_bytes(change(text).encode("latin-1"), [recipient])
    (kit / "identity.age").write_bytes(sealed)
    with pytest.raises((ConfigError, CryptoError), match=words):
        unlock(kit, opener)


@pytest.mark.parametrize("file", ["roster.json", "authority.pem", "silo.toml"])
def test_a_kit_that_is_not_all_there_is_refused_by_the_name_of_what_is_missing(
    file: str, federation: Federation
) -> None:
    kit, opener = federation.kit("north"), federation.opener("north")
    unlock(kit, opener)
    (kit / file).unlink()
    with pytest.raises(ConfigError, match=file.replace(".", r"\.")):
        read_kit(kit)


def test_a_kit_without_its_keys_is_not_taken_for_a_simulated_one(federation: Federation) -> None:
    kit, opener = federation.kit("north"), federation.opener("north")
    (kit / "identity.age").unlink()
    with pytest.raises(ConfigError, match=r"holds no identity\.age"):
        unlock(kit, opener)
    (kit / "identity.key").write_text("ab" * 32)
    with pytest.raises(ConfigError, match="is sealed"):
        read_kit(kit)


def test_without_its_lattice_key_a_kit_refuses_the_roster(federation: Federation) -> None:
    """Nobody who deletes a file makes a kit ask for less."""
    (federation.kit("north") / "authority.mldsa65").unlink()
    with pytest.raises(Exception, match="not signed by the authority"):
        read_federation_roster(federation.kit("north"))


def test_a_leafs_certificate_is_no_authority(federation: Federation) -> None:
    kit = federation.kit("north")
    shutil.copy(kit / "tls.pem", kit / "authority.pem")
    with pytest.raises(ConfigError, match="is not the certificate of an authority"):
        read_federation_roster(kit)
