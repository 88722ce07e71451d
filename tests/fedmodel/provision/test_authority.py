"""What the administrator makes and changes: each kit holds its own secrets alone, and a change touches one kit."""

from __future__ import annotations

import re
import shutil
import ssl
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from fedmodel.config import read_federation_file, read_scenario, read_silo_file
from fedmodel.crypto.certificates import check_issued, check_revocations, fingerprint, not_valid_after, serial_number
from fedmodel.crypto.postquantum import post_quantum_hash
from fedmodel.crypto.renewing import revocations_number
from fedmodel.crypto.sealed import opener_from_passphrase, read_sealed
from fedmodel.crypto.transport import server_context
from fedmodel.errors import ConfigError, CryptoError
from fedmodel.provision import (
    accept_revocations,
    expiring,
    fingerprints,
    is_sealed,
    law_of,
    read_authority,
    read_federation_roster,
    read_kit,
    read_law,
    read_revocations,
    read_server_law,
    scenario_hash,
    unlock,
)
from fedmodel.provision.authority import add, issue, read_scenarios, renew, revoke, rotate, show
from fedmodel.provision.identity import Unlocked, open_identity
from server import party
from tests import tools
from tests.conftest import TINY
from tests.federations import (
    MASKED,
    SILOS,
    Federation,
    federation,
    federation_toml,
    issued,
    pristine,
    write_federation,
)

__all__ = ["federation", "pristine"]

PARTIES = ("server", *SILOS)
SECRET_FILES = ("identity.age", "tls.key", "node.key")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def secrets_of(one: Federation, name: str) -> list[bytes]:
    """Return every secret of a party, in every form in which it could lie in a file."""
    folder = one.kit(name)
    own = open_identity(folder, one.opener(name))
    text = read_sealed(folder / "identity.age", one.opener(name)).decode()
    seeds = [bytes.fromhex(seed) for seed in re.findall(r"^# (?:ed25519|mldsa65): (.+)$", text, flags=re.MULTILINE)]
    assert len(seeds) == 2
    key_file = (one.root / "keys" / f"{name}.key").read_text().splitlines()[-1]
    found = [own.age_secret, key_file, own.tls_password, own.node_password, *(seed.hex() for seed in seeds)]
    raw = list(seeds)
    for file, password in (("tls.key", own.tls_password), ("node.key", own.node_password)):
        if (folder / file).exists():
            raw.append((folder / file).read_bytes())
            key = load_pem_private_key(raw[-1], password.encode())
            size = key.key_size // 8  # type: ignore[union-attr]
            raw.append(key.private_numbers().private_value.to_bytes(size, "big"))  # type: ignore[union-attr]
    raw.append((folder / "identity.age").read_bytes())
    return [*(word.encode() for word in found), *(word.upper().encode() for word in found), *raw]


def test_every_kit_holds_its_own_secrets_alone_and_none_of_them_in_the_clear(pristine: Federation) -> None:
    contents = {name: files(pristine.kit(name)) for name in (*PARTIES, "authority")}
    for name in (*PARTIES, "authority"):
        for secret in secrets_of(pristine, name):
            assert len(secret) >= 31
            for other, held in contents.items():
                for file, data in held.items():
                    own = other == name and file in SECRET_FILES and data == secret
                    assert own or secret not in data, (name, other, file)
    for name in PARTIES:
        assert not [file for file in contents[name] if file.endswith(".key") and file not in SECRET_FILES]


def test_everything_is_its_owners_alone(pristine: Federation) -> None:
    for path in [pristine.root, *pristine.root.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_a_kit_has_what_its_party_needs_and_no_more(pristine: Federation) -> None:
    shared = {"identity.age", "authority.pem", "authority.mldsa65", "roster.json", "tls.pem", "tls.key", "README.md"}
    silo = shared | {"silo.toml", "node.key", "fedmodel-silo.service", "scenarios/tiny.toml"}
    server = shared | {"server.toml", "revoked.pem", "fedmodel-server.service"}
    assert set(files(pristine.kit("server"))) == server
    for name in SILOS:
        assert set(files(pristine.kit(name))) == silo
        copy = read_scenario(str(pristine.kit(name) / "scenarios" / "tiny.toml"))
        assert read_law(pristine.kit(name)).scenarios == (scenario_hash(copy).hex(),)
        assert (pristine.kit(name) / "README.md").read_text().count("\n") == 5
    assert {path.name for path in (pristine.root / "keys").iterdir()} == {
        f"{name}.key" for name in (*PARTIES, "authority")
    }


def test_an_unlocked_kit_is_read_like_a_simulated_one(pristine: Federation) -> None:
    server = pristine.unlock("server")
    scenario = read_scenario(str(pristine.root / "authority" / "scenarios" / "tiny.toml"))
    for number, name in enumerate(sorted(SILOS), start=1):
        own, kit = pristine.unlock(name), read_kit(pristine.kit(name))
        assert own.name == kit.law.name == name
        assert kit.roster.number(own.identity.public) == number
        simulated = law_of(scenario, name, server.identity.public)
        assert kit.law.servers == (server.identity.public.hex(),)
        assert kit.law.scenarios == (scenario_hash(scenario).hex(),)
        assert kit.law.connection is not None
        assert kit.law.connection.address == "localhost:9443"
        assert server.post_quantum is not None
        assert kit.law.post_quantum_servers == (post_quantum_hash(server.post_quantum.public),)
        assert kit.law.model_copy(update={"connection": None, "post_quantum_servers": ()}) == simulated
    law = read_server_law(pristine.kit("server"))
    assert (law.federation, law.listen, law.hosts) == ("northern", "0.0.0.0:9443", ("localhost", "127.0.0.1"))


def test_certificates_are_the_authoritys_for_one_purpose_each(pristine: Federation) -> None:
    for name in PARTIES:
        kit = pristine.kit(name)
        pem = (kit / "tls.pem").read_bytes()
        check_issued(pem, (kit / "authority.pem").read_bytes())
        assert fingerprint(pem) == pristine.roster.member(name).certificate
        uses = x509.load_pem_x509_certificate(pem).extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert [use._name for use in uses] == ["serverAuth" if name == "server" else "clientAuth"]
        own = pristine.unlock(name)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_cert_chain(kit / "tls.pem", kit / "tls.key", own.tls_password)
    check_revocations(*((pristine.kit("server") / file).read_bytes() for file in ("revoked.pem", "authority.pem")))


def test_without_post_quantum_there_is_no_such_key_and_no_such_signature(tmp_path: Path) -> None:
    one = issued(tmp_path)
    assert not list(one.root.rglob("authority.mldsa65"))
    assert {member.post_quantum for member in one.roster.members} == {None}
    assert b'"mldsa65":null' in (one.kit("north") / "roster.json").read_bytes()
    assert one.unlock("north").post_quantum is None
    assert read_law(one.kit("north")).post_quantum_servers == ()


def test_where_both_signatures_are_asked_for_a_roster_without_one_is_refused(federation: Federation) -> None:
    assert read_authority(federation.kit("north")).post_quantum is not None
    own = open_identity(federation.kit("authority"), federation.opener())
    (federation.kit("north") / "roster.json").write_bytes(federation.roster.sign(own.identity, None))
    with pytest.raises(Exception, match="not signed by the authority"):
        read_federation_roster(federation.kit("north"))


@tools.needed("age")
def test_the_ordinary_age_tool_opens_an_identity_and_what_is_sealed_to_it(pristine: Federation, tmp_path: Path) -> None:
    own = pristine.unlock("north")
    sealed, key = pristine.kit("north") / "identity.age", pristine.root / "keys" / "north.key"
    opened = subprocess.run(["age", "-d", "-i", key, sealed], capture_output=True, check=True).stdout
    assert own.age_secret.encode() in opened
    identity = tmp_path / "identity"
    identity.write_bytes(opened)  # as it is, seeds in its comments and all
    recipient = pristine.roster.member("north").age
    model = subprocess.run(["age", "-r", recipient], input=b"model", capture_output=True, check=True).stdout
    decrypted = subprocess.run(["age", "-d", "-i", identity], input=model, capture_output=True, check=True).stdout
    assert decrypted == b"model"


def test_passphrases_one_a_party(tmp_path: Path) -> None:
    alone = TINY.replace('["north", "south", "west"]', '["north"]').replace("min_silos = 2", "min_silos = 1")
    write_federation(tmp_path, scenario=alone)
    (tmp_path / "federation.toml").write_text(federation_toml(("north",), 'seal = "passphrase"'))
    federation = read_federation_file(tmp_path / "federation.toml")
    scenarios = read_scenarios(federation, tmp_path)
    with pytest.raises(ConfigError, match='seal = "passphrase", and no passphrases are given'):
        issue(federation, scenarios, tmp_path / "out")
    words = {name: f"correct horse battery {name}" for name in ("authority", "server", "north")}
    issue(federation, scenarios, tmp_path / "out", passphrases=words.__getitem__)
    assert not (tmp_path / "out" / "keys").exists()
    north = tmp_path / "out" / "silos" / "north"
    assert open_identity(north, opener_from_passphrase(words["north"])).name == "north"
    with pytest.raises(CryptoError):
        open_identity(north, opener_from_passphrase(words["server"]))
    assert "--passphrase-file ${CREDENTIALS_DIRECTORY}/passphrase" in (north / "fedmodel-silo.service").read_text()


def test_a_half_made_federation_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    federation = write_federation(tmp_path)
    scenarios = read_scenarios(federation, tmp_path)
    before = sorted(tmp_path.iterdir())

    def fails(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fedmodel.provision.authority.write_silo_law", fails)
    with pytest.raises(KeyboardInterrupt):
        issue(federation, scenarios, tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before


def test_a_place_that_is_taken_is_refused_and_left_alone(tmp_path: Path) -> None:
    federation = write_federation(tmp_path)
    scenarios = read_scenarios(federation, tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("kept")
    with pytest.raises(ConfigError, match="is there already") as refused:
        issue(federation, scenarios, out)
    assert refused.value.exit_status == 2
    assert files(out) == {"mine": b"kept"}
    (out / "mine").unlink()
    issue(federation, scenarios, out)
    assert is_sealed(out / "server")


@pytest.mark.parametrize(
    ("silos", "scenario", "words"),
    [
        (SILOS, TINY.replace("seed = 5", ""), r"'tiny' has no seed, so it is another one"),
        (("north", "south", "wets"), TINY, r"'tiny' names 'west', no silo of the federation; did you mean 'wets'\?"),
        ((*SILOS, "east"), TINY, r"silo 'east' is in none of the scenarios \(tiny\)"),
        ((*SILOS, "east"), TINY + MASKED, r"'tiny' does not name 'east': under secure aggregation"),
    ],
)
def test_a_federation_that_does_not_fit_its_scenarios_is_refused(
    silos: tuple[str, ...], scenario: str, words: str, tmp_path: Path
) -> None:
    write_federation(tmp_path, scenario=scenario)
    (tmp_path / "federation.toml").write_text(federation_toml(silos))
    federation = read_federation_file(tmp_path / "federation.toml")
    with pytest.raises(ConfigError, match=words):
        issue(federation, read_scenarios(federation, tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def crl(one: Federation) -> set[int]:
    """Return the serial numbers on the server's list, checked to be the authority's."""
    pem = (one.kit("server") / "revoked.pem").read_bytes()
    check_revocations(pem, (one.kit("server") / "authority.pem").read_bytes())
    return {entry.serial_number for entry in x509.load_pem_x509_crl(pem)}


def changed(before: dict[str, bytes], after: dict[str, bytes]) -> set[str]:
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def everything_but(one: Federation, *names: str) -> dict[str, bytes]:
    kits = [name for name in PARTIES if name not in names]
    return {f"{name}/{file}": data for name in kits for file, data in files(one.kit(name)).items()}


PUBLIC = {"north/roster.json", "south/roster.json", "west/roster.json", "server/roster.json", "server/revoked.pem"}


def test_a_revoked_silo_is_out_of_the_roster_and_its_certificate_on_the_list(federation: Federation) -> None:
    before, serial = everything_but(federation), serial_number((federation.kit("west") / "tls.pem").read_bytes())
    assert crl(federation) == set()
    change = revoke(federation.root, "west", "laptop stolen", federation.opener())
    assert [member.name for member in change.roster.members] == ["server", "north", "south"]
    assert change.roster.serial == 2
    assert [(gone.name, gone.reason) for gone in change.roster.revoked] == [("west", "laptop stolen")]
    assert crl(federation) == {serial}
    assert changed(before, everything_but(federation)) == PUBLIC - {"west/roster.json"}
    assert read_federation_roster(federation.kit("north")) == change.roster
    federation.unlock("north")
    assert [member.name for member in read_kit(federation.kit("north")).roster.members] == ["north", "south"]
    # The revoked kit, shown the new roster, says why it is one no more.
    shutil.copy(federation.kit("authority") / "roster.json", federation.kit("west") / "roster.json")
    with pytest.raises(ConfigError, match=r"'west' is no member.*laptop stolen"):
        federation.unlock("west")


def test_neither_the_server_nor_the_last_silo_is_revoked(federation: Federation) -> None:
    with pytest.raises(ConfigError, match="rotate"):
        revoke(federation.root, "server", "why", federation.opener())
    for name in ("west", "north"):
        revoke(federation.root, name, "why", federation.opener())
    with pytest.raises(ConfigError, match="last silo"):
        revoke(federation.root, "south", "why", federation.opener())
    with pytest.raises(ConfigError, match="says why"):
        revoke(federation.root, "south", " ", federation.opener())


def test_rotation_replaces_every_key_and_touches_no_other_kit(federation: Federation) -> None:
    kit = federation.kit("north")
    before, law = everything_but(federation, "north"), read_law(kit)
    old, old_keys = federation.roster.member("north"), federation.unlock("north")
    old_opener, serial = federation.opener("north"), serial_number((kit / "tls.pem").read_bytes())
    (kit / "ledgers").mkdir()
    (kit / "ledgers" / "north.sqlite").write_bytes(b"kept")
    change = rotate(federation.root, "north", federation.opener())
    new, new_keys = change.roster.member("north"), federation.unlock("north")
    for field in ("identity", "post_quantum", "node", "age", "tls", "certificate"):
        assert getattr(new, field) != getattr(old, field), field
    assert new_keys.age_secret != old_keys.age_secret
    with pytest.raises(CryptoError):
        open_identity(kit, old_opener)
    assert crl(federation) == {serial}
    assert [(gone.name, gone.identity) for gone in change.roster.revoked] == [("north", old.identity)]
    assert changed(before, everything_but(federation, "north")) == PUBLIC - {"north/roster.json"}
    assert change.fingerprints["north"] != federation.change.fingerprints["north"]
    assert (kit / "ledgers" / "north.sqlite").read_bytes() == b"kept"
    # What was spent under the old key is not forgotten by giving the whole budget again.
    assert read_law(kit) == law.model_copy(update={"budgets": {}})
    assert any("what is left of each" in note for note in change.notes)
    assert stat.S_IMODE((kit / "identity.age").stat().st_mode) == 0o600


def test_an_old_kit_that_is_put_back_after_rotation_is_refused(federation: Federation, tmp_path: Path) -> None:
    backup, opener = tmp_path / "backup", federation.opener("north")
    shutil.copytree(federation.kit("north"), backup)
    rotate(federation.root, "north", federation.opener())
    shutil.copy(federation.kit("north") / "roster.json", backup / "roster.json")
    with pytest.raises(ConfigError, match="they were rotated, and the kit is the old one"):
        unlock(backup, opener)


def test_the_servers_rotation_says_what_silos_have_to_change(federation: Federation) -> None:
    before = everything_but(federation, "server")
    change = rotate(federation.root, "server", federation.opener())
    own = federation.unlock("server")
    note = next(note for note in change.notes if "servers =" in note)
    assert own.identity.public.hex() in note
    assert own.post_quantum is not None
    assert post_quantum_hash(own.post_quantum.public) in note
    assert changed(before, everything_but(federation, "server")) == {f"{name}/roster.json" for name in SILOS}
    assert len(crl(federation)) == 1


def test_a_silo_is_added_without_touching_the_others(federation: Federation, tmp_path: Path) -> None:
    before = everything_but(federation)
    opener = federation.opener()
    with pytest.raises(ConfigError, match=r"silo 'east' is in none of the scenarios"):
        add(federation.root, "east", opener)
    (tmp_path / "more.toml").write_text((TINY + MASKED).replace('"west"]', '"west", "east"]'))
    scenario = read_scenario(str(tmp_path / "more.toml"))
    change = add(federation.root, "east", opener, scenarios=[scenario])
    assert [silo.name for silo in change.roster.silos] == ["east", "north", "south", "west"]
    assert changed(before, everything_but(federation)) == PUBLIC
    assert federation.unlock("east").name == "east"
    law = read_kit(federation.kit("east")).law
    assert (law.scenarios, law.largest_roster) == ((scenario_hash(scenario).hex(),), 4)
    note = next(note for note in change.notes if "largest_roster = 4" in note)
    assert scenario_hash(scenario).hex() in note
    assert stat.S_IMODE(federation.kit("east").stat().st_mode) == 0o700
    for name, words in (("east", "a member already"), ("server", "a member already"), ("East!", "no name of a silo")):
        with pytest.raises(ConfigError, match=words):
            add(federation.root, name, opener, scenarios=[scenario])
    assert read_federation_roster(federation.kit("authority")) == change.roster


def test_a_revoked_silo_comes_back_with_new_keys(federation: Federation) -> None:
    opener, scenario = federation.opener(), read_scenario(str(federation.root / "authority/scenarios/tiny.toml"))
    revoke(federation.root, "west", "left", opener)
    shutil.rmtree(federation.kit("west"))
    change = add(federation.root, "west", opener, scenarios=[scenario])
    assert change.roster.member("west").identity != federation.roster.member("west").identity
    assert federation.unlock("west").name == "west"
    assert len(crl(federation)) == 1


def test_a_list_of_revocations_is_never_replaced_by_an_older_one(federation: Federation) -> None:
    """Under the older one, the certificate of whoever was put out would be good again."""
    kit = federation.kit("server")
    accept_revocations(kit, read_revocations(kit))
    older = (kit / "revoked.pem").read_bytes()
    revoke(federation.root, "west", "left", federation.opener())
    accept_revocations(kit, read_revocations(kit))
    accept_revocations(kit, read_revocations(kit))  # the same once more is no older one
    newer = (kit / "revoked.pem").read_bytes()
    (kit / "revoked.pem").write_bytes(older)
    check_revocations(older, (kit / "authority.pem").read_bytes())  # the authority's, and not run out
    with pytest.raises(ConfigError, match=r"is list \d+ of the authority's, and this kit had list \d+"):
        accept_revocations(kit, read_revocations(kit))
    (kit / "revoked.pem").write_bytes(newer)
    accept_revocations(kit, read_revocations(kit))
    (kit / "revoked.number").write_text("none")
    with pytest.raises(ConfigError, match=r"revoked\.number: does not say"):
        accept_revocations(kit, read_revocations(kit))
    (kit / "revoked.pem").unlink()
    with pytest.raises(ConfigError, match=r"revoked\.pem: cannot be read"):
        read_revocations(kit)


def test_the_list_that_the_port_checks_by_is_the_one_whose_number_is_kept(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An administrator's newer list comes in between: the older one is checked by, and no newer number is kept."""
    kit, own = federation.kit("server"), federation.unlock("server")
    older = revocations_number((kit / "revoked.pem").read_bytes())

    def swapped(*given: Any) -> Any:
        context = server_context(*given)
        revoke(federation.root, "west", "left", federation.opener())
        return context

    monkeypatch.setattr(party, "server_context", swapped)
    context = party._server_tls(kit, own)
    assert revocations_number((kit / "revoked.pem").read_bytes()) > older
    assert int((kit / "revoked.number").read_text()) == older
    assert context.cert_store_stats()["crl"] == 1


def test_the_numbers_of_lists_rise_though_the_administrators_clock_is_set_back(federation: Federation) -> None:
    last = federation.kit("authority") / "revoked.pem"
    before = revocations_number(last.read_bytes())
    revoke(federation.root, "west", "left", federation.opener(), now=datetime.now(UTC) - timedelta(hours=2))
    assert revocations_number(last.read_bytes()) == before + 1


def test_renewing_gives_new_dates_to_the_same_keys(federation: Federation) -> None:
    before = {name: files(federation.kit(name)) for name in PARTIES}
    later = datetime.now(UTC) + timedelta(days=390)
    assert len(expiring(federation.kit("server"), later)) == 3
    change = renew(federation.root, [], federation.opener(), now=later)
    for name in PARTIES:
        touched = changed(before[name], files(federation.kit(name)))
        assert touched == {"tls.pem", "roster.json"} | ({"revoked.pem"} if name == "server" else set())
        pem = (federation.kit(name) / "tls.pem").read_bytes()
        check_issued(pem, (federation.kit(name) / "authority.pem").read_bytes())
        assert not_valid_after(pem) == (later + timedelta(days=397)).replace(microsecond=0)
        assert fingerprint(pem) == change.roster.member(name).certificate
        assert expiring(federation.kit(name), later) == []
    server = x509.load_pem_x509_certificate((federation.kit("server") / "tls.pem").read_bytes())
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert change.fingerprints == federation.change.fingerprints
    assert crl(federation) == set()
    # Both certificates are for one key, so revoking takes both.
    revoke(federation.root, "west", "left", federation.opener(), now=later)
    assert len(crl(federation)) == 2


def test_what_ends_is_said_thirty_days_before_and_not_earlier(federation: Federation) -> None:
    kit = federation.kit("north")
    end = not_valid_after((kit / "tls.pem").read_bytes())
    assert expiring(kit, end - timedelta(days=30, minutes=1)) == []
    lines = expiring(kit, end - timedelta(days=30))
    assert any("the certificate expires on" in line and "in 30 days" in line for line in lines)
    assert all("fedmodel authority renew" in line for line in lines)
    assert any("the certificate expired on" in line for line in expiring(kit, end))
    assert any("list of revoked" in line for line in expiring(federation.kit("server"), end))


def test_nothing_is_issued_past_the_authoritys_own_end(federation: Federation) -> None:
    end = not_valid_after((federation.kit("authority") / "authority.pem").read_bytes())
    change = renew(federation.root, ["north"], federation.opener(), now=end - timedelta(days=40))
    assert change.roster.expires <= end.strftime("%Y-%m-%dT%H:%M:%SZ")
    with pytest.raises(ConfigError, match="authority's certificate has expired"):
        renew(federation.root, ["north"], federation.opener(), now=end)


def test_anybody_elses_key_does_not_open_the_authority(federation: Federation) -> None:
    before = files(federation.root)
    for opener in (federation.opener("north"), opener_from_passphrase("a guess at random")):
        with pytest.raises(CryptoError):
            revoke(federation.root, "west", "why", opener)
    assert files(federation.root) == before
    with pytest.raises(ConfigError, match="holds no authority/"):
        revoke(federation.kit("north"), "west", "why", federation.opener())


def test_the_roster_is_shown_from_any_kit_without_a_key(pristine: Federation) -> None:
    for folder in (pristine.root, *(pristine.kit(name) for name in PARTIES)):
        change = show(folder)
        assert change.roster == pristine.roster
        assert change.fingerprints == pristine.change.fingerprints
    assert pristine.change.fingerprints == fingerprints(pristine.roster, pristine.change.keys)


def test_secrets_are_not_in_what_is_printed(pristine: Federation) -> None:
    own = pristine.unlock("north")
    assert isinstance(own, Unlocked)
    shown = repr(own) + repr(read_kit(pristine.kit("north")))
    assert own.age_secret not in shown
    assert own.seed.hex() not in shown
    assert str(own.seed) not in shown


@tools.needed("systemd-analyze")
@pytest.mark.parametrize("name", ["server", "north"])
def test_systemd_takes_the_units(name: str, pristine: Federation, tmp_path: Path) -> None:
    role = "server" if name == "server" else "silo"
    text = (pristine.kit(name) / f"fedmodel-{role}.service").read_text()
    assert f"ExecStart=/opt/fedmodel/bin/fedmodel {role} start /var/lib/fedmodel/{name} --key-file" in text
    for line in ("NoNewPrivileges=yes", "ProtectSystem=strict", "PrivateTmp=yes", "Restart=on-failure", "LimitCORE=0"):
        assert f"\n{line}\n" in text
    assert ("\nLimitNOFILE=65536\n" in text) == (role == "server")
    assert "\nRuntimeDirectory=%N\nRuntimeDirectoryMode=0700\n" in text
    assert f"\nReadWritePaths=/var/lib/fedmodel/{name}\n" in text
    assert f"\nLoadCredential=key:/etc/fedmodel/{name}.key\n" in text
    unit = tmp_path / f"fedmodel-{role}.service"
    # It looks whether the program is there: here one that is.
    unit.write_text(text.replace("/opt/fedmodel/bin/fedmodel", sys.executable))
    found = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


def test_a_law_is_read_back_from_its_file(pristine: Federation) -> None:
    assert read_silo_file(pristine.kit("north") / "silo.toml") == read_law(pristine.kit("north"))
