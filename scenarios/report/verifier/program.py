"""The command of the verifier: `python fedmodel-verify.pyz FOLDER --authority DIGITS`.

| Ends with | When                                                                                                  |
|-----------|-------------------------------------------------------------------------------------------------------|
| 6         | all that it checks holds; it never checks everything, and says what it did not                        |
| 3         | a figure does not follow: the claim is refuted                                                        |
| 4         | a file, a ledger, a signature or a roster is not as it was written                                    |
| 2         | there is no report, or what was given is in no such form                                              |

It never ends with 0, since the page and PRV are not computed again: `fedmodel report verify` does that. Whether
anything is vouched for from outside the folder is in the first line, and in `anchored` of `--json`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from fedmodel.errors import FedmodelError
from fedmodel.system.inert import inert
from scenarios.report.verifier.holding import Found
from scenarios.report.verifier.verify import NOT_RECOMPUTED, verify

HOLDS: Final = 6


def main(arguments: Sequence[str] | None = None) -> int:
    """Check a folder, print what was found, and return the exit status."""
    given = _parser().parse_args(arguments)
    try:
        found = verify(given.folder, given.authority, given.silo_key, given.key, given.model)
    except FedmodelError as error:
        if given.json:
            print(json.dumps({"valid": False, "code": error.code, "reason": inert(str(error))}))  # noqa: T201
        print(f"error: {inert(str(error))}", file=sys.stderr)  # noqa: T201
        return error.exit_status
    print(json.dumps(_told(found)) if given.json else _lines(found))  # noqa: T201
    return HOLDS


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fedmodel-verify",
        description="Verify a report of fedmodel from its folder: signatures, files, ledgers, and the figures of"
        " privacy that follow from them.",
        epilog=f"NOT recomputed: {'; '.join(NOT_RECOMPUTED)}. `fedmodel report verify` does, with all of fedmodel.",
    )
    parser.add_argument("folder", type=Path, help="a run's folder, or a silo's own report")
    parser.add_argument("--authority", help="the authority's fingerprint or key, from a source that you trust")
    parser.add_argument("--silo-key", action="append", default=[], metavar="NAME=HEX", help="a silo's public key")
    parser.add_argument("--key", help="the server's public key, in hexadecimal")
    parser.add_argument("--model", type=Path, help="the model, opened, where the folder does not have it open")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    return parser


def _told(found: Found) -> dict[str, object]:
    return {
        "valid": True,
        "anchored": not found.gaps,
        "gaps": found.gaps,
        "not_recomputed": list(NOT_RECOMPUTED),
        "signer": found.signer,
        "claim": found.claim,
        "checked": [{"item": item, "found": told} for item, told in found.items],
    }


def _lines(found: Found) -> str:
    vouched = (
        "Every key is known from outside this folder, and nothing was missing"
        if not found.gaps
        else f"NOT all of it is vouched for from outside this folder: {'; '.join(found.gaps)}"
    )
    rows = [vouched, *(f"{item}: {told}" for item, told in found.items)]
    rows += [f"NOT recomputed: {'; '.join(NOT_RECOMPUTED)}", f"Claim: {found.claim}"]
    return "\n".join(map(inert, rows))
