"""X.509 as a federation needs it: one authority, its certificates for TLS, its list of revocations, Flower's node keys.

The authority's Ed25519 key is also the administrator's `SigningKey`, so that a federation has one key to keep offline.
A signature of one kind never passes for one of another kind, because the signed bytes differ:

| Signed by              | First byte | Why no other kind has it                                                       |
|------------------------|------------|--------------------------------------------------------------------------------|
| `SigningKey.sign`      | 0x00       | the two-byte length of a label, and a label is shorter than 256 bytes          |
| `Authority`            | 0x30       | TBSCertificate and TBSCertList are SEQUENCEs in DER (RFC 5280, 4.1 and 5.1)    |
| `SigningKey.sign_note` | printable, | 0x30 too, but it refuses control characters, and whatever X.509 signs has one: |
|                        | 0x21-0x7E  | 0x06, the tag of its algorithm's identifier                                    |

Leaf keys and the keys of Flower's nodes are P-256: a node makes a signature for every request, and P-384 takes eight
times as long. Private keys leave this module as PKCS #8 under a password (PBES2: PBKDF2 and AES-256-CBC), the form that
`ssl` and `openssl` read.

For a request, a node signs only the time, and nothing of the request's content. So for some minutes the signature is
also valid beside any other request. TLS protects what is sent, and so do the signatures that `fedmodel.wire` makes
itself.

NOT protected: the password of a key file. PBKDF2's few rounds do not slow down somebody who guesses, so the password
must be derived from 32 uniform bytes and never be chosen by a person. PBES2 does not authenticate: a changed file fails
to parse, or gives another key, which then does not fit its certificate. A revoked certificate stays valid for whoever
has no list of revocations. A quantum computer could forge a handshake while it takes place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from ipaddress import ip_address
from re import compile as pattern
from typing import Final, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedmodel.crypto.primitives import KEY_SIZE, SigningKey, sized
from fedmodel.errors import ConfigError, CryptoError

# Hospitals' clocks differ: what is issued now must not be "not yet valid" elsewhere.
CLOCKS: Final = timedelta(hours=1)
# For years, the most that public authorities were allowed: a year, and a month for renewal.
LEAF_DAYS: Final = 397
AUTHORITY_DAYS: Final = 3650

_MOST_NAME: Final = 64  # RFC 5280's ub-common-name
_HOST: Final = pattern(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
_LEAST_PASSWORD: Final = 32


class Purpose(Enum):
    """What a certificate is for; a certificate for one purpose is refused for the other."""

    SERVER = "server"
    CLIENT = "client"


@dataclass(frozen=True)
class Issued:
    """A certificate and its key, both PEM; the key is encrypted under the password that `issue` was given."""

    certificate: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True)
class NodeKey:
    """The key pair of a Flower node, both PEM; the private key is encrypted. `public` is in Flower's form."""

    key: bytes = field(repr=False)
    public: bytes


class Authority:
    """A federation's authority with its key and certificate, so that it can issue.

    Args:
        seed: The administrator's 32 bytes, those of its `SigningKey`. Sensitive.
        certificate: The authority's own, PEM.

    Raises:
        CryptoError: When the certificate is not an authority's, or not for this key.
    """

    def __init__(self, seed: bytes, certificate: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(sized(seed, KEY_SIZE, "an authority's key"))
        self.administrator = SigningKey(seed)
        self.certificate = certificate
        self._read = _authority(certificate)
        if self._read.public_key() != self._key.public_key():
            raise CryptoError(f"the authority's certificate, of {subject_name(certificate)!r}, is of another key")

    def __repr__(self) -> str:
        return f"<Authority {subject_name(self.certificate)!r}>"

    @classmethod
    def make(cls, seed: bytes, name: str, *, days: int = AUTHORITY_DAYS, now: datetime | None = None) -> Self:
        """Return a new authority with a certificate of its own; it may sign leaf certificates, and no other authority.

        Args:
            seed: 32 uniform bytes. Sensitive.
            name: Shown in certificates, e.g. the federation's.
            days: How long it is valid.
            now: For tests; by default the clock's time.

        Raises:
            ConfigError: When the name is not of 1 to 64 printable characters, or `days` is less than 1.
        """
        key = Ed25519PrivateKey.from_private_bytes(sized(seed, KEY_SIZE, "an authority's key"))
        subject, public = _name(name), key.public_key()
        usage = _usage(key_cert_sign=True, crl_sign=True)
        builder = (
            _begun(subject, subject, _from(now), _until(now, days))
            .public_key(public)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        )
        return cls(seed, builder.sign(key, None).public_bytes(Encoding.PEM))

    def issue(
        self,
        name: str,
        purpose: Purpose,
        *,
        password: str,
        hosts: Sequence[str] = (),
        days: int = LEAF_DAYS,
        now: datetime | None = None,
    ) -> Issued:
        """Return a certificate with a new P-256 key.

        Args:
            name: The party's name in the roster; it becomes the certificate's common name.
            purpose: The only purpose that it may be used for.
            password: Encrypts the key; derived, at least 32 characters. Sensitive.
            hosts: A server's names and addresses, as others connect to it; empty for a client.
            days: How long it is valid.
            now: For tests; by default the clock's time.

        Raises:
            ConfigError: When a name, a host or a number of days is not acceptable, or the certificate would outlive the
                authority's.
        """
        if (purpose is Purpose.SERVER) != bool(hosts):
            raise ConfigError(f"{name}: a server's certificate names its hosts, and a client's names none")
        until, ends = _until(now, days), self._read.not_valid_after_utc
        if until > ends:
            raise ConfigError(
                f"{name}: {days} days from now is after {ends:%Y-%m-%d}, when the authority's own certificate ends; "
                "take fewer days, or make a new authority"
            )
        key = ec.generate_private_key(ec.SECP256R1())
        public = key.public_key()
        server = purpose is Purpose.SERVER
        extended = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = (
            _begun(_name(name), self._read.subject, _from(now), until)
            .public_key(public)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([extended]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(self._key_identifier(), critical=False)
        )
        if hosts:
            alternatives = x509.SubjectAlternativeName([_host(host) for host in hosts])
            builder = builder.add_extension(alternatives, critical=False)
        return Issued(builder.sign(self._key, None).public_bytes(Encoding.PEM), _encrypted(key, password))

    def revoke(
        self, serials: Mapping[int, datetime], *, days: int = LEAF_DAYS, now: datetime | None = None, after: int = 0
    ) -> bytes:
        """Return the list of all revocations, PEM; a newer list replaces the older.

        Args:
            serials: The serial numbers that are revoked, and since when. May be empty.
            days: In how many days a newer list is due; after that, whoever checks this one refuses everybody.
            now: For tests; by default the clock's time.
            after: The number of the list that this one replaces.

        Raises:
            ConfigError: When `days` is less than 1, or a time has no zone.
        """
        begins = _from(now)
        # The number must rise from list to list (RFC 5280, section 5.2.3): it is the time in milliseconds, or one more
        # than the last number if that is higher.
        number = max(after + 1, int((begins + CLOCKS).timestamp() * 1000))
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._read.subject)
            .last_update(begins)
            .next_update(_until(now, days))
            .add_extension(x509.CRLNumber(number), critical=False)
            .add_extension(self._key_identifier(), critical=False)
        )
        for serial, when in sorted(serials.items()):
            revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(_zoned(when)).build()
            builder = builder.add_revoked_certificate(revoked)
        return builder.sign(self._key, None).public_bytes(Encoding.PEM)

    def _key_identifier(self) -> x509.AuthorityKeyIdentifier:
        """Return the identifier that distinguishes this authority's key from another of the same name."""
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())


def make_node_key(password: str) -> NodeKey:
    """Return a new P-256 key for a Flower node, encrypted under a derived password (Sensitive)."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return NodeKey(_encrypted(key, password), public)


def load_node_key(pem: bytes, password: str) -> ec.EllipticCurvePrivateKey:
    """Return a node's key, in the form that Flower takes. Sensitive.

    Raises:
        CryptoError: When it does not open with the password, or is no P-256 key.
    """
    try:
        key = load_pem_private_key(pem, password.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # TypeError: it was not encrypted at all, so `make_node_key` did not make it.
        raise CryptoError("a node's key does not open with its kit's identity") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise CryptoError("a node's key is on P-256, and this is another kind of key")
    return key


def fingerprint(certificate: bytes) -> str:
    """Return the SHA-256 of a PEM certificate's DER, 64 hex digits; `openssl x509 -fingerprint -sha256` shows the same.

    Raises:
        CryptoError: When it is no certificate.
    """
    return hashlib.sha256(_certificate(certificate).public_bytes(Encoding.DER)).hexdigest()


def not_valid_after(certificate: bytes) -> datetime:
    """Return when a PEM certificate ends, in UTC.

    Raises:
        CryptoError: When it is no certificate.
    """
    return _certificate(certificate).not_valid_after_utc


def subject_name(certificate: bytes) -> str:
    """Return the name in a PEM certificate, which is the party's.

    Raises:
        CryptoError: When it is no certificate, or does not have exactly one name.
    """
    names = _certificate(certificate).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(names) != 1:
        raise CryptoError(f"a certificate has one common name, and this has {len(names)}")
    return str(names[0].value)


def serial_number(certificate: bytes) -> int:
    """Return a PEM certificate's serial number, by which it is revoked.

    Raises:
        CryptoError: When it is no certificate.
    """
    return _certificate(certificate).serial_number


def check_issued(certificate: bytes, authority: bytes) -> None:
    """Check that an authority signed a certificate. TLS checks that it is valid today, and for which purpose.

    Args:
        certificate: PEM.
        authority: The authority's certificate, PEM.

    Raises:
        CryptoError: When the authority did not sign it, or one of the two is no such certificate.
    """
    leaf, issuer = _certificate(certificate), _authority(authority)
    try:
        leaf.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError):
        found = f"the certificate of {subject_name(certificate)!r}"
        raise CryptoError(f"{found} was not issued by the authority {subject_name(authority)!r}") from None


def check_revocations(revoked: bytes, authority: bytes, *, now: datetime | None = None) -> None:
    """Check that an authority signed a list of revocations, and that no newer one is due.

    Args:
        revoked: The list, PEM, and nothing else.
        authority: The authority's certificate, PEM.
        now: For tests; by default the clock's time.

    Raises:
        CryptoError: When the authority did not sign it, or it is no such list.
        ConfigError: When a newer list is due: whoever checks this one refuses everybody.
    """
    issuer = _authority(authority)
    if revoked.count(b"-----BEGIN ") != 1:
        # OpenSSL would trust a certificate in this file.
        raise CryptoError("a list of revocations is one block of PEM, and nothing else")
    try:
        crl = x509.load_pem_x509_crl(revoked)
        key = issuer.public_key()
        signed = crl.issuer == issuer.subject and crl.is_signature_valid(key)  # type: ignore[arg-type]
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature):
        raise CryptoError("no list of revocations, or one that was changed") from None
    if not signed:
        raise CryptoError(f"the list of revocations was not signed by the authority {subject_name(authority)!r}")
    due = crl.next_update_utc
    if due is None or due <= _clock(now):
        raise ConfigError(
            f"a newer list of revocations was due at {due:%Y-%m-%d %H:%M} UTC, and after that every certificate is "
            "refused; have the administrator issue one"
            if due
            else "the list of revocations does not say when a newer one is due"
        )


def _certificate(pem: bytes) -> x509.Certificate:
    """Read a certificate that is alone in its file: OpenSSL would trust, or show, anything else in the file."""
    if pem.count(b"-----BEGIN ") > 1:
        raise CryptoError("one certificate in PEM is needed, and there is more")
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise CryptoError("no certificate in PEM, or one that was changed") from None


def _authority(pem: bytes) -> x509.Certificate:
    """Read an authority's certificate, which is self-signed."""
    certificate = _certificate(pem)
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        certificate.verify_directly_issued_by(certificate)
        if constraints.ca:
            return certificate
    except (x509.ExtensionNotFound, InvalidSignature, ValueError, TypeError):
        pass
    raise CryptoError("the certificate is no authority's, or was changed")


def _begun(subject: x509.Name, issuer: x509.Name, begins: datetime, until: datetime) -> x509.CertificateBuilder:
    """Begin a certificate; its serial number is 20 random bytes, so nobody knows beforehand what will be signed."""
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer)
    return builder.serial_number(x509.random_serial_number()).not_valid_before(begins).not_valid_after(until)


def _usage(**allowed: bool) -> x509.KeyUsage:
    """Return a key usage that allows only what is named."""
    every = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    uses = dict.fromkeys((*every, "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"), False)
    return x509.KeyUsage(**{**uses, **allowed})


def _encrypted(key: ec.EllipticCurvePrivateKey, password: str) -> bytes:
    """Return a private key, encrypted under a derived password."""
    if len(password) < _LEAST_PASSWORD:
        raise CryptoError(f"a key's password is derived, and has at least {_LEAST_PASSWORD} characters")
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password.encode()))


def _name(name: str) -> x509.Name:
    """Make an X.509 name."""
    if not 1 <= len(name) <= _MOST_NAME or not name.isprintable():
        raise ConfigError(f"{name[:80]!r}: a certificate's name has 1 to {_MOST_NAME} printable characters")
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _host(host: str) -> x509.GeneralName:
    """Make an alternative name from an address or a host's name; no wildcards, because a server knows its names."""
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        pass
    # If the last label has only digits, the name is a mistyped address.
    if not _HOST.fullmatch(host) or host.rpartition(".")[2].isdigit():
        raise ConfigError(f"{host[:80]!r} is no host: an IP address, or a DNS name in lower case, without a wildcard")
    return x509.DNSName(host)


def _clock(now: datetime | None) -> datetime:
    return datetime.now(UTC) if now is None else _zoned(now)


def _from(now: datetime | None) -> datetime:
    return _clock(now) - CLOCKS


def _until(now: datetime | None, days: int) -> datetime:
    if days < 1:
        raise ConfigError(f"{days} days: a certificate or a list is valid for 1 at least")
    return _clock(now) + timedelta(days=days)


def _zoned(when: datetime) -> datetime:
    if when.tzinfo is None:
        raise ConfigError(f"{when.isoformat()}: a time without a zone")
    return when.astimezone(UTC)
