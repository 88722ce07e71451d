"""A renewed certificate: the same key, name, hosts and purpose under new dates, and only for the authority's own."""

from __future__ import annotations

import hashlib
import subprocess
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from fedmodel.crypto import SigningKey
from fedmodel.crypto.certificates import Authority, Purpose, check_issued
from fedmodel.crypto.renewing import authority_key, renew, revocations_due, tls_key_hash
from fedmodel.errors import ConfigError, CryptoError
from tests import tools

SEED, PASSWORD = bytes(range(32)), "p" * 32
NOW = datetime(2026, 3, 1, tzinfo=UTC)
AUTHORITY = Authority.make(SEED, "northern authority", now=NOW)
SERVER = AUTHORITY.issue("server", Purpose.SERVER, password=PASSWORD, hosts=["localhost", "10.0.0.1"], now=NOW)
LATER = NOW + timedelta(days=390)


def test_all_but_dates_and_number_stays() -> None:
    new = renew(SEED, AUTHORITY.certificate, SERVER.certificate, days=100, now=LATER)
    check_issued(new, AUTHORITY.certificate)
    one, other = (x509.load_pem_x509_certificate(pem) for pem in (SERVER.certificate, new))
    assert (one.subject, one.public_key(), list(one.extensions)) == (
        other.subject, other.public_key(), list(other.extensions)
    )  # fmt: skip
    assert one.serial_number != other.serial_number
    assert other.not_valid_before_utc == LATER - timedelta(hours=1)
    assert other.not_valid_after_utc == LATER + timedelta(days=100)
    assert tls_key_hash(new) == tls_key_hash(SERVER.certificate)


def test_only_the_authoritys_own_certificates_are_renewed() -> None:
    stranger = Authority.make(bytes(32), "northern authority", now=NOW)
    theirs = stranger.issue("server", Purpose.SERVER, password=PASSWORD, hosts=["localhost"], now=NOW)
    with pytest.raises(CryptoError, match="was not issued by the authority"):
        renew(SEED, AUTHORITY.certificate, theirs.certificate, days=100, now=LATER)
    with pytest.raises(CryptoError, match="of another key"):
        renew(bytes(32), AUTHORITY.certificate, SERVER.certificate, days=100, now=LATER)
    with pytest.raises(CryptoError, match="no extension"):  # nor is its own, into another authority's
        renew(SEED, AUTHORITY.certificate, _odd(), days=100, now=LATER)
    with pytest.raises(ConfigError, match="when the authority's own certificate ends"):
        renew(SEED, AUTHORITY.certificate, SERVER.certificate, days=3650, now=LATER)


def _odd() -> bytes:
    """Return a certificate of the authority's with an extension that it never issues."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding

    old = x509.load_pem_x509_certificate(SERVER.certificate)
    builder = (
        x509.CertificateBuilder()
        .subject_name(old.subject)
        .issuer_name(old.issuer)
        .serial_number(7)
        .not_valid_before(NOW)
        .not_valid_after(LATER)
        .public_key(old.public_key())
        .add_extension(x509.InhibitAnyPolicy(0), critical=True)
    )
    return builder.sign(Ed25519PrivateKey.from_private_bytes(SEED), None).public_bytes(Encoding.PEM)


def test_the_authoritys_key_is_the_administrators() -> None:
    assert authority_key(AUTHORITY.certificate) == SigningKey(SEED).public
    for pem in (SERVER.certificate, b"nothing"):
        with pytest.raises(CryptoError):
            authority_key(pem)


@tools.needed("openssl")
def test_the_hash_of_a_key_is_what_openssl_makes_of_it() -> None:
    public = subprocess.run(
        ["openssl", "x509", "-noout", "-pubkey"], input=SERVER.certificate, capture_output=True, check=True
    ).stdout
    der = subprocess.run(
        ["openssl", "pkey", "-pubin", "-outform", "DER"], input=public, capture_output=True, check=True
    ).stdout
    assert tls_key_hash(SERVER.certificate) == hashlib.sha256(der).hexdigest()


def test_a_list_says_when_a_newer_one_is_due() -> None:
    assert revocations_due(AUTHORITY.revoke({}, days=9, now=NOW)) == NOW + timedelta(days=9)
    with pytest.raises(CryptoError, match="no list of revocations"):
        revocations_due(AUTHORITY.certificate)
