"""A signed report as plain JSON, and the files that it is of: read, and held to its signature and to their hashes.

Guarantee: `read` returns a document in the one form in which a report is written, that the holder of the key beside it
signed; `check_files` passes a folder whose files are, byte for byte, those that the document is of.

Does NOT say whose the key is.
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from fedmodel.crypto import verify
from fedmodel.errors import ConfigError, CryptoError, LedgerTampered

REPORT: Final = "report.json"
SERVER_REPORT: Final = "server-report.json"
PAGE: Final = "report.html"
BESIDES: Final = "besides.jsonl"
BOOK: Final = "book.jsonl"
LABEL: Final = b"fedmodel/v1/report"
FORMAT: Final = "fedmodel-report/3"
_LARGEST_BYTES: Final = 64 * 2**20
_NEEDED: Final = ("scenario.toml", "summary.json", "metrics.jsonl", "registry.yaml")
_OF_REPORTED: Final = ("charges.json", "run.json")


def read(path: Path) -> tuple[dict[str, Any], bytes]:
    """Return the document, and the key that signed it.

    Raises:
        ConfigError: When there is none.
        LedgerTampered: When it is no report, is of another format, or its signature is not of its key.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read: {error.strerror}; it is to lie in the folder that is given"
        ) from None
    if len(data) > _LARGEST_BYTES:
        raise LedgerTampered(f"{path.name}: is over {_LARGEST_BYTES} bytes, and no report")
    try:
        document = json.loads(data)
        report, signature = document["report"], document["signature"]
        key, signed = bytes.fromhex(signature["key"]), bytes.fromhex(signature["signature"])
        message = json.dumps(report, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")
        written = (json.dumps(document, indent=2, allow_nan=False) + "\n").encode("ascii")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise LedgerTampered(f"{path.name}: is no signed report ({type(error).__name__})") from None
    if report.get("format") != FORMAT:
        raise LedgerTampered(
            f"{path.name}: is of another format than {FORMAT}, the one that is read here; take the verifier of the"
            " version of fedmodel that wrote it"
        )
    if data != written or document.keys() != {"report", "signature"}:
        raise LedgerTampered(f"{path.name}: is not in the one form in which a report is written")
    if signature != {"algorithm": "ed25519", "key": key.hex(), "label": LABEL.decode(), "signature": signed.hex()}:
        raise LedgerTampered(f"{path.name}: its signature is in another form than a report's")
    try:
        verify(key, LABEL, message, signed)
    except CryptoError:
        raise LedgerTampered(f"{path.name}: its signature is not of key {key.hex()[:16]}...") from None
    if report["integrity"]["signer"] != key.hex():
        raise LedgerTampered(f"{path.name}: is signed by another key than the one that it names")
    return report, key


def check_files(folder: Path, report: dict[str, Any]) -> list[str]:
    """Refuse a folder of which a file is not the one that a report is of; return their names.

    Raises:
        LedgerTampered: When one is another, or is gone; or the report is not of all that is read here.
    """
    run = report["run"]
    needed = {PAGE, *_NEEDED, *(_OF_REPORTED if run.get("reported") else ())}
    needed |= {BOOK} if run.get("booked") else set()
    needed |= {BESIDES} if (folder / BESIDES).is_file() else set()
    needed |= {SERVER_REPORT} if run.get("copy_for") and not run.get("reported") else set()
    if missing := needed - {file["name"] for file in report["integrity"]["files"]}:
        raise LedgerTampered(f"{REPORT}: is of no {min(missing)}, and a report is never without one")
    names = []
    for file in report["integrity"]["files"]:
        name, path = file["name"], folder / file["name"]
        found = sha256(path.read_bytes()).hexdigest() if path.parent == folder and path.is_file() else None
        if found is None:
            raise LedgerTampered(f"{REPORT}: is of {name}, which is not here")
        if found != file["sha256"]:
            changed = "is a changed page" if name == PAGE else "is another file than the one that was signed"
            raise LedgerTampered(
                f"{name}: {changed}: its SHA-256 is {found[:16]}..., and {file['sha256'][:16]}... was signed; do not"
                " rely on what it says"
            )
        names.append(name)
    return names
