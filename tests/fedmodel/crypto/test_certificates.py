"""The authority, what it issues and revokes, and Flower's node keys."""

from __future__ import annotations

import hashlib
import subprocess
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID
from flwr.supercore.primitives.asymmetric import (
    bytes_to_public_key,
    public_key_to_bytes,
    sign_message,
    verify_signature,
)

from fedmodel import crypto
from fedmodel.crypto import Authority, Purpose, SigningKey
from fedmodel.errors import ConfigError, CryptoError
from tests import tools
from tests.tls_kits import DAY, NOW, OWN, PASSWORD, SEED, STRANGER, Kit, kit, revocations

# --- Certificates -----------------------------------------------------------------------------------------------------


def test_an_authoritys_certificate_is_what_rfc_5280_asks() -> None:
    read = x509.load_pem_x509_certificate(OWN.certificate)
    constraints = read.extensions.get_extension_for_class(x509.BasicConstraints)
    usage = read.extensions.get_extension_for_class(x509.KeyUsage)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert usage.value.crl_sign
    assert not usage.value.digital_signature
    assert read.subject == read.issuer
    assert read.public_key().public_bytes_raw() == SigningKey(SEED).public  # type: ignore[union-attr]
    assert crypto.subject_name(OWN.certificate) == "ward"
    assert crypto.not_valid_after(OWN.certificate) == (NOW + 3550 * DAY).replace(microsecond=0)


def test_what_is_issued_is_what_was_asked() -> None:
    issued = OWN.issue(
        "north", Purpose.SERVER, password=PASSWORD, hosts=["10.0.0.5", "fd00::1", "a.b-c.example"], now=NOW
    )
    read = x509.load_pem_x509_certificate(issued.certificate)
    names = read.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name) for name in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.5", "fd00::1"]
    assert names.get_values_for_type(x509.DNSName) == ["a.b-c.example"]
    assert list(read.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.SERVER_AUTH
    ]
    assert not read.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert read.not_valid_before_utc == (NOW - timedelta(hours=1)).replace(microsecond=0)
    assert crypto.not_valid_after(issued.certificate) == (NOW + 397 * DAY).replace(microsecond=0)
    assert crypto.subject_name(issued.certificate) == "north"
    assert crypto.serial_number(issued.certificate) == read.serial_number
    assert crypto.fingerprint(issued.certificate) == hashlib.sha256(read.public_bytes(Encoding.DER)).hexdigest()
    crypto.check_issued(issued.certificate, OWN.certificate)
    with pytest.raises(CryptoError, match="was not issued by"):
        crypto.check_issued(issued.certificate, STRANGER.certificate)
    assert b"ENCRYPTED PRIVATE KEY" in issued.key
    assert "PRIVATE" not in repr(issued)
    key = load_pem_private_key(issued.key, PASSWORD.encode())
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.curve.name == "secp256r1"
    client = OWN.issue("north", Purpose.CLIENT, password=PASSWORD)
    assert crypto.serial_number(client.certificate) != read.serial_number
    extensions = x509.load_pem_x509_certificate(client.certificate).extensions
    assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.CLIENT_AUTH]


@pytest.mark.parametrize(
    "host",
    [
        "",
        "*.example",
        "a_b.example",
        "-a.example",
        "a..b",
        "A.example",
        "10.0.0.300",
        "h:1",
        "a.example.",
        "x" * 64,
        "ü.de",
    ],
)
def test_what_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(ConfigError, match="is no host"):
        OWN.issue("server", Purpose.SERVER, password=PASSWORD, hosts=["ok.example", host])


def test_what_cannot_be_issued_is_refused() -> None:
    def issue(name: str = "north", purpose: Purpose = Purpose.CLIENT, **more: object) -> None:
        OWN.issue(name, purpose, **{"password": PASSWORD, **more})  # type: ignore[arg-type]

    for words, call in [
        ("names its hosts", lambda: issue(purpose=Purpose.SERVER)),
        ("a client's names none", lambda: issue(hosts=["a"])),
        ("is after .* when the authority's own certificate ends", lambda: issue(days=3600)),
        ("0 days", lambda: issue(days=0)),
        ("1 to 64 printable", lambda: issue("x" * 65)),
        ("1 to 64 printable", lambda: issue("")),
        ("1 to 64 printable", lambda: issue("a\nb")),
        ("without a zone", lambda: issue(now=datetime(2030, 1, 1))),
        ("without a zone", lambda: OWN.revoke({1: datetime(2030, 1, 1)})),
        ("0 days", lambda: OWN.revoke({}, days=0)),
    ]:
        with pytest.raises(ConfigError, match=words):
            call()
    with pytest.raises(CryptoError, match="at least 32 characters"):
        issue(password="hospital1")  # noqa: S106


def test_an_authority_is_its_key_and_its_certificate() -> None:
    assert Authority(SEED, OWN.certificate).administrator.public == SigningKey(SEED).public
    assert repr(OWN) == "<Authority 'ward'>"
    with pytest.raises(CryptoError, match="is of another key"):
        Authority(SEED, STRANGER.certificate)
    with pytest.raises(CryptoError, match="no authority's"):
        Authority(SEED, OWN.issue("north", Purpose.CLIENT, password=PASSWORD).certificate)
    with pytest.raises(CryptoError, match="31 bytes, where 32"):
        Authority(SEED[:-1], OWN.certificate)
    with pytest.raises(CryptoError, match="no certificate"):
        Authority(SEED, b"")


def test_a_changed_certificate_is_not_the_authoritys() -> None:
    changed = OWN.issue("north", Purpose.CLIENT, password=PASSWORD).certificate
    der = bytearray(x509.load_pem_x509_certificate(changed).public_bytes(Encoding.DER))
    der[-1] ^= 1
    pem = x509.load_der_x509_certificate(bytes(der)).public_bytes(Encoding.PEM)
    with pytest.raises(CryptoError, match="was not issued by"):
        crypto.check_issued(pem, OWN.certificate)


def test_a_list_of_revocations_names_what_is_revoked() -> None:
    crl = x509.load_pem_x509_crl(OWN.revoke({7: NOW, 9: NOW - DAY}, days=10, now=NOW))
    assert [one.serial_number for one in crl] == [7, 9]
    assert crl.next_update_utc == (NOW + 10 * DAY).replace(microsecond=0)
    later = x509.load_pem_x509_crl(OWN.revoke({}, now=NOW + timedelta(seconds=1)))
    numbers = [one.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number for one in (crl, later)]
    assert numbers[0] < numbers[1]
    crypto.check_revocations(OWN.revoke({}), OWN.certificate)


# --- One key, three kinds of signatures -------------------------------------------------------------------------------


def test_x509_and_labelled_signatures_never_pass_for_each_other() -> None:
    """What X.509 signs begins with 0x30 and is no note; what has a label begins with 0x00 and is no DER of X.509's."""
    administrator = OWN.administrator
    leaf = x509.load_pem_x509_certificate(OWN.issue("north", Purpose.CLIENT, password=PASSWORD).certificate)
    crl = x509.load_pem_x509_crl(OWN.revoke({}))
    for signed, signature in [
        (leaf.tbs_certificate_bytes, leaf.signature),
        (crl.tbs_certlist_bytes, crl.signature),
        (x509.load_pem_x509_certificate(OWN.certificate).tbs_certificate_bytes, None),
    ]:
        assert signed[0] == 0x30
        if signature is not None:
            Ed25519PublicKey.from_public_bytes(administrator.public).verify(signature, signed)
            with pytest.raises(CryptoError):
                crypto.verify_note(administrator.public, signed, signature)
            # Read as a label's length, the first two bytes ask for more than a label may have.
            assert int.from_bytes(signed[:2], "big") > 255
        for text in (signed, signed + b"\n"):
            with pytest.raises(CryptoError):
                administrator.sign_note(text)
    label = b"fedmodel/v1/roster-file"
    signature = administrator.sign(label, leaf.tbs_certificate_bytes)
    with pytest.raises(InvalidSignature):
        Ed25519PublicKey.from_public_bytes(administrator.public).verify(signature, leaf.tbs_certificate_bytes)


# --- Flower's node keys -----------------------------------------------------------------------------------------------


def test_a_node_key_is_as_flower_writes_and_reads_it() -> None:
    made = crypto.make_node_key(PASSWORD)
    key = crypto.load_node_key(made.key, PASSWORD)
    assert key.curve.name == "secp256r1"
    assert made.public == public_key_to_bytes(key.public_key())
    assert verify_signature(bytes_to_public_key(made.public), b"m", sign_message(key, b"m"))
    assert isinstance(load_pem_public_key(made.public), ec.EllipticCurvePublicKey)
    assert "PRIVATE" not in repr(made)


def test_a_node_key_that_is_none_is_refused() -> None:
    made = crypto.make_node_key(PASSWORD)
    key = crypto.load_node_key(made.key, PASSWORD)
    plain = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    under = BestAvailableEncryption(PASSWORD.encode())
    other = ec.generate_private_key(ec.SECP384R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, under)
    for pem, password, words in [
        (made.key, "another", "does not open with its kit's identity"),
        (made.key, "", "does not open"),
        (plain, PASSWORD, "does not open"),
        (b"junk", PASSWORD, "does not open"),
        (made.public, PASSWORD, "does not open"),
        (other, PASSWORD, "is on P-256"),
    ]:
        with pytest.raises(CryptoError, match=words):
            crypto.load_node_key(pem, password)
    with pytest.raises(CryptoError, match="at least 32"):
        crypto.make_node_key("short")


# --- The ordinary tool ------------------------------------------------------------------------------------------------


@tools.needed("openssl")
def test_openssl_verifies_what_was_issued(tmp_path: Path) -> None:
    silo, server = kit(tmp_path / "north"), kit(tmp_path / "server", Purpose.SERVER)

    def verify(one: Kit, purpose: str, crl: Path) -> subprocess.CompletedProcess[str]:
        strict = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-crl_check", "-CRLfile", str(crl)]
        return subprocess.run(
            [*strict, "-CAfile", one.authority, one.cert], capture_output=True, text=True, check=False
        )

    clean, dirty = revocations(tmp_path / "clean.pem"), revocations(tmp_path / "dirty.pem", silo)
    assert verify(silo, "sslclient", clean).returncode == 0
    assert verify(server, "sslserver", clean).returncode == 0
    assert "certificate revoked" in verify(silo, "sslclient", dirty).stderr
    assert "purpose" in verify(silo, "sslserver", clean).stderr
    shown = ["openssl", "x509", "-in", silo.cert, "-noout", "-fingerprint", "-sha256"]
    text = subprocess.run(shown, capture_output=True, text=True, check=True).stdout
    assert text.strip().partition("=")[2].replace(":", "").lower() == crypto.fingerprint(silo.certificate)
    opened = ["openssl", "pkey", "-in", silo.key, "-passin", f"pass:{PASSWORD}", "-noout", "-check"]
    assert subprocess.run(opened, capture_output=True, check=False).returncode == 0
