"""Reads certificates for more than their validity, and issues a certificate again for the same key.

A renewed certificate has the same name, key, hosts and purpose, and new dates. This needs no secret of the party, so a
kit's keys stay where they are.

Does NOT check whether the old certificate is still valid: expired ones are renewed too. Does NOT check for revocation:
a renewed certificate would undo it, so callers ask the roster first.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fedmodel.crypto.certificates import CLOCKS, check_issued
from fedmodel.errors import ConfigError, CryptoError

_KEPT: Final = (
    x509.BasicConstraints,
    x509.KeyUsage,
    x509.ExtendedKeyUsage,
    x509.SubjectAlternativeName,
    x509.SubjectKeyIdentifier,
    x509.AuthorityKeyIdentifier,
)


def authority_key(certificate: bytes) -> bytes:
    """Return the Ed25519 key of an authority's PEM certificate, 32 bytes.

    Raises:
        CryptoError: When it is no certificate that an Ed25519 key signed for itself.
    """
    check_issued(certificate, certificate)
    key = _read(certificate).public_key()
    if not isinstance(key, Ed25519PublicKey):
        raise CryptoError("an authority's key is Ed25519, and this certificate's is another kind")
    return key.public_bytes_raw()


def tls_key_hash(certificate: bytes) -> str:
    """Return the SHA-256 of a PEM certificate's public key (SubjectPublicKeyInfo in DER), 64 hex digits.

    Raises:
        CryptoError: When it is no certificate.
    """
    key = _read(certificate).public_key()
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def revocations_due(revoked: bytes) -> datetime:
    """Return when a list of revocations, PEM, has to be replaced by a newer one.

    Raises:
        CryptoError: When it is no list of revocations, or does not say.
    """
    try:
        due = x509.load_pem_x509_crl(revoked).next_update_utc
    except ValueError:
        raise CryptoError("no list of revocations, or one that was changed") from None
    if due is None:
        raise CryptoError("the list of revocations does not say when a newer one is due")
    return due


def revocations_number(revoked: bytes) -> int:
    """Return the number of a list of revocations, PEM: each newer list of an authority has a higher number.

    Raises:
        CryptoError: When it is no list of revocations, or does not say.
    """
    try:
        numbers = x509.load_pem_x509_crl(revoked).extensions.get_extension_for_class(x509.CRLNumber)
    except (ValueError, x509.ExtensionNotFound):
        raise CryptoError("no list of revocations, or one that does not say its number") from None
    return numbers.value.crl_number


def renew(seed: bytes, authority: bytes, certificate: bytes, *, days: int, now: datetime | None = None) -> bytes:
    """Return a certificate with new dates for the key, name, hosts and purpose of an old one, PEM.

    Args:
        seed: The authority's 32 bytes. Sensitive.
        authority: Its certificate, PEM.
        certificate: The old one, PEM.
        days: How long the new one is valid.
        now: For tests; by default the clock's time.

    Raises:
        CryptoError: When this authority did not issue the old one, or the seed is another authority's.
        ConfigError: When the new one would outlive the authority's.
    """
    check_issued(certificate, authority)
    key = Ed25519PrivateKey.from_private_bytes(seed)
    if key.public_key().public_bytes_raw() != authority_key(authority):
        raise CryptoError("the authority's certificate is of another key")
    old, issuer = _read(certificate), _read(authority)
    begins = datetime.now(UTC) if now is None else now
    until = begins + timedelta(days=days)
    if until > issuer.not_valid_after_utc:
        raise ConfigError(
            f"{days} days from now is after {issuer.not_valid_after_utc:%Y-%m-%d}, when the authority's own certificate"
            " ends; take fewer days, or make a new authority"
        )
    builder = (
        x509.CertificateBuilder()
        .subject_name(old.subject)
        .issuer_name(issuer.subject)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins - CLOCKS)
        .not_valid_after(until)
        .public_key(old.public_key())
    )
    for extension in old.extensions:
        if not isinstance(extension.value, _KEPT):
            raise CryptoError(f"a certificate of ours has no extension {extension.oid.dotted_string}")
        builder = builder.add_extension(extension.value, critical=extension.critical)
    return builder.sign(key, None).public_bytes(Encoding.PEM)


def _read(pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise CryptoError("no certificate in PEM, or one that was changed") from None
