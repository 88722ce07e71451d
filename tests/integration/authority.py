"""Certificates and keys for tests: an authority, a server, silos, and all that can be wrong with them."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedmodel.crypto.transport import server_context
from fedmodel.errors import ConfigError

PASSWORD = "of tests " * 4
DAY = timedelta(days=1)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


class Authority:
    """Issues certificates into a folder, and keeps the list of those that it took back."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self.folder, self._name = folder, _name(name)
        folder.mkdir(parents=True, exist_ok=True)
        self._key = ed25519.Ed25519PrivateKey.generate()
        now = datetime.now(UTC)
        self._certificate = (
            x509.CertificateBuilder()
            .subject_name(self._name)
            .issuer_name(self._name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 400 * DAY)
            .not_valid_after(now + 400 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .add_extension(
                x509.KeyUsage(False, False, False, False, False, True, True, False, False),
                critical=True,
            )
            .sign(self._key, None)
        )
        self._revoked: list[int] = []
        self._serials: dict[str, int] = {}
        (folder / "authority.pem").write_bytes(self._certificate.public_bytes(Encoding.PEM))
        self._write_revoked()

    def issue(self, name: str, *, host: str | None = None, days: tuple[int, int] = (-1, 30)) -> None:
        """Write NAME.pem and NAME.key: of a server where a host is given, of a silo where not."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        usage = ExtendedKeyUsageOID.SERVER_AUTH if host else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + days[0] * DAY)
            .not_valid_after(now + days[1] * DAY)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if host:
            try:
                named: x509.GeneralName = x509.IPAddress(ip_address(host))
            except ValueError:
                named = x509.DNSName(host)
            builder = builder.add_extension(x509.SubjectAlternativeName([named]), critical=False)
        certificate = builder.sign(self._key, None)
        self._serials[name] = certificate.serial_number
        (self.folder / f"{name}.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
        (self.folder / f"{name}.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    def revoke(self, name: str) -> None:
        """Put a certificate on the list."""
        self._revoked.append(self._serials[name])
        self._write_revoked()

    def _write_revoked(self) -> None:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._name)
            .last_update(now - DAY)
            .next_update(now + 30 * DAY)
            .add_extension(x509.CRLNumber(len(self._revoked) + 1), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        for serial in self._revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now - DAY).build()
            )
        partial = self.folder / "revoked.partial"
        partial.write_bytes(builder.sign(self._key, None).public_bytes(Encoding.PEM))
        partial.replace(self.folder / "revoked.pem")


def new_node(folder: Path, name: str) -> None:
    """Write NAME.node, the key of a silo's node."""
    key = ec.generate_private_key(ec.SECP384R1())
    (folder / f"{name}.node").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def read_node(folder: Path, name: str) -> ec.EllipticCurvePrivateKey:
    """Return a node's key."""
    key = load_pem_private_key((folder / f"{name}.node").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def public_node(folder: Path, name: str) -> str:
    """Return the public half of a node's key, in PEM."""
    public = read_node(folder, name).public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def looked(folder: Path, name: str) -> Callable[[bytes, bytes], None]:
    """Return what looks whether a silo is in the roster that a server shows."""

    def look(_certificate: bytes, roster: bytes) -> None:
        if public_node(folder, name) not in {member["node"] for member in json.loads(roster)["roster"]["members"]}:
            raise ConfigError("this silo is not registered")

    return look


def write_roster(folder: Path, silos: tuple[str, ...], padding_bytes: int = 0) -> None:
    """Write roster.json, unsigned: what is tested here asks for no proof. Padding makes it as large as one of many."""
    members = [{"name": silo, "role": "silo", "node": public_node(folder, silo)} for silo in silos]
    partial = folder / "roster.partial"
    partial.write_text(json.dumps({"roster": {"members": members}, "padding": " " * padding_bytes}))
    partial.replace(folder / "roster.json")


def node_keys(folder: Path) -> dict[str, str]:
    """Return the node keys of a roster by silo."""
    members = json.loads((folder / "roster.json").read_text())["roster"]["members"]
    return {member["name"]: member["node"] for member in members}


def server_tls(folder: Path) -> ssl.SSLContext:
    """Return the context of a server that wants certificates, and looks whether they were revoked."""
    paths = (folder / name for name in ("server.pem", "server.key"))
    return server_context(*paths, PASSWORD, folder / "authority.pem", (folder / "revoked.pem").read_bytes())


def silo_tls(folder: Path, name: str | None) -> ssl.SSLContext:
    """Return the context of a silo, without a certificate where no name is given."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(folder / "authority.pem")
    if name is not None:
        context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key", PASSWORD)
    return context
