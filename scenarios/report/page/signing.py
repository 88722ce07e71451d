"""A report as a signed file, and back.

    {"report": {...},
     "signature": {"algorithm": "ed25519", "key": hex, "label": "fedmodel/v1/report", "signature": hex}}

What is signed is the canonical JSON of `report`: sorted keys, no spaces, no NaN, ASCII, under the label.

Guarantee: a file whose `Signed.check` passes holds exactly the document that the holder of `Signed.key` signed, in the
one form in which it is written: no byte of it can be another.

Does NOT say whose the key is: `scenarios.report` holds it to the one that silos' laws name, or that is given.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import Field, ValidationError

from fedmodel.crypto import SigningKey, verify
from fedmodel.errors import CryptoError, LedgerTampered
from scenarios.report.document import FORMAT, Report
from scenarios.runs.parts import Hash, Part

LABEL: Final = b"fedmodel/v1/report"
NAME: Final = "report.json"
_LARGEST_BYTES: Final = 64 * 2**20


class Signature(Part):
    """Whose signature it is, and how it was made."""

    algorithm: Literal["ed25519"] = "ed25519"
    key: Hash
    label: Literal["fedmodel/v1/report"] = "fedmodel/v1/report"
    signature: str = Field(pattern=r"^[0-9a-f]{128}$")


class File(Part):
    """The whole of `report.json`."""

    report: Report
    signature: Signature


@dataclass(frozen=True)
class Signed:
    """A report as a file has it, whose signature is not checked yet.

    Attributes:
        report: The document.
        key: The public key that it says it is signed with.
        data: The file's bytes.
    """

    report: Report
    key: bytes
    data: bytes
    _signature: bytes

    def check(self) -> None:
        """Refuse a file that the holder of its key did not sign as it is.

        Raises:
            LedgerTampered: When it is one.
        """
        try:
            verify(self.key, LABEL, canonical(self.report), self._signature)
        except CryptoError:
            raise LedgerTampered(f"{NAME}: its signature is not of key {self.key.hex()[:16]}...") from None
        if self.data != _written(self.report, self.key, self._signature):
            raise LedgerTampered(f"{NAME}: is not in the one form in which a report is written")


def seal(report: Report, key: SigningKey) -> bytes:
    """Return the signed file of a report."""
    return _written(report, key.public, key.sign(LABEL, canonical(report)))


def open_report(data: bytes) -> Signed:
    """Read a file, without checking its signature.

    Raises:
        LedgerTampered: When it is no report.
    """
    if len(data) > _LARGEST_BYTES:
        raise LedgerTampered(f"{NAME}: is over {_LARGEST_BYTES} bytes, and no report")
    try:
        file = File.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        if first["loc"] == ("report", "format"):
            raise LedgerTampered(
                f"{NAME}: is of another format than {FORMAT}, the one that is read here; verify it with the version of"
                " fedmodel that wrote it, or make another of the run's folder with `fedmodel report build`"
            ) from None
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise LedgerTampered(f"{NAME}: is no report: {where}: {first['msg']}") from None
    return Signed(file.report, bytes.fromhex(file.signature.key), data, bytes.fromhex(file.signature.signature))


def canonical(report: Report) -> bytes:
    """Return the bytes that are signed."""
    return json.dumps(plain(report), sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def plain(report: Report) -> dict[str, Any]:
    """Return a report as JSON has it: objects, lists, strings and numbers."""
    return report.model_dump(mode="json")


def _written(report: Report, key: bytes, signature: bytes) -> bytes:
    """Return the file, for a person to read too."""
    signed = Signature(key=key.hex(), signature=signature.hex())
    document = {"report": plain(report), "signature": signed.model_dump(mode="json")}
    return (json.dumps(document, indent=2, allow_nan=False) + "\n").encode("ascii")
