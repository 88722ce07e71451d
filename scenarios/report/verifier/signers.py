"""Who signed what: the report, the run's end in each ledger, and in a silo's folder the server's report.

Guarantee: a folder passes only if no silo countersigned the run's end for another model than the one that is named
here; if a silo's own report is signed with the key of its ledger; and if the server's report beside that is signed by
the server, is for this silo and this run, and says what the ledger does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from fedmodel.errors import ClaimRefuted, ConfigError, LedgerTampered
from scenarios.report.verifier import signed
from scenarios.report.verifier.figures import Held
from scenarios.report.verifier.holding import Found, hold
from scenarios.report.verifier.keys import Keys

_MODEL: Final = "model.safetensors"
_EITHER_WAY: Final = ("epsilon", "mu", "advantage", "delta", "steps_reserved")


def check_models(
    folder: Path, report: Mapping[str, Any], ledgers: Mapping[str, Held], model: Path | None, found: Found
) -> None:
    """Refuse ledgers whose silos countersigned the run's end for another model than the one here, or for two."""
    here = model if model is not None else folder / _MODEL
    if model is not None and not model.is_file():
        raise ConfigError(f"--model {model}: is no file")
    digest = sha256(here.read_bytes()).hexdigest() if here.is_file() else None
    if model is None and digest and _MODEL not in {file["name"] for file in report["integrity"]["files"]}:
        raise LedgerTampered(f"{signed.REPORT}: is of no {_MODEL}, and one lies here")
    told = digest or json.loads((folder / "summary.json").read_bytes()).get("model_sha256")
    names, missing = {}, []
    for silo in (row["silo"] for row in report["claim"]["silos"]):
        own = ledgers[silo].own if silo in ledgers else None
        if own is None or own.ended is None or not own.charges:
            missing.append(silo)
            continue
        names[silo] = own.model
        stored = next(head["countersigned"] for head in report["integrity"]["ledgers"] if head["silo"] == silo)
        if stored != {"entry": own.ended, "model": own.model, "code": own.code}:
            raise LedgerTampered(f"silo {silo}: its countersignature is another than the report says")
        if told is not None and own.model != told:
            raise LedgerTampered(f"silo {silo}: countersigned the run's end for another model than the one named here")
    if missing != list(report["integrity"]["not_countersigned"]):
        raise LedgerTampered("integrity.not_countersigned: is not what the ledgers say")
    if len(set(names.values())) > 1:
        raise LedgerTampered(f"{folder}: its silos countersigned the run's end for {len(set(names.values()))} models")
    found.gaps += [f"no countersignature of silo {silo}" for silo in missing]
    if told is None:
        found.gaps.append("the model lies here sealed, or not at all, and was not compared: give --model")
    found.items.append(("run's end", f"countersigned by {', '.join(names) or 'nobody'}"))


def check_signer(
    folder: Path, report: Mapping[str, Any], signer: bytes, keys: Keys, found: Found, ledgers: Mapping[str, Held]
) -> None:
    """Hold the signer to who it has to be; in a silo's folder, the server's report to the ledger besides."""
    run = report["run"]
    if run.get("copy_for") is not None and not run.get("reported", False):
        silo = run["copy_for"]
        if signer != ledgers[silo].standing.key:
            raise LedgerTampered(f"{signed.REPORT}: is not signed by silo {silo}, whose ledger it is of")
        _check_server_report(folder, report, keys)
        found.items.append((signed.SERVER_REPORT, f"signed by the server; its figures agree with the ledger of {silo}"))
    elif keys.server is not None and signer != keys.server:
        raise LedgerTampered(f"{signed.REPORT}: is signed by another key than the run's server's")
    whose = "known from outside" if keys.server_anchored else "NOT known from outside"
    found.items.append(("signature", f"of {signer.hex()}; the server's key is {whose}"))
    if not keys.server_anchored:
        found.gaps.append("the server's key was NOT checked: give --key, or a federation's --authority")


def _check_server_report(folder: Path, report: Mapping[str, Any], keys: Keys) -> None:
    stored, signer = signed.read(folder / signed.SERVER_REPORT)
    if keys.server is None or signer != keys.server:
        raise LedgerTampered(f"{signed.SERVER_REPORT}: is signed by another key than the server's")
    told, run = stored["run"], report["run"]
    if not told.get("reported") or (told.get("copy_for"), told["run"]) != (run["copy_for"], run["run"]):
        raise LedgerTampered(f"{signed.SERVER_REPORT}: is not the server's for this silo and this run")
    (own,), (theirs,) = report["claim"]["silos"], stored["claim"]["silos"]
    fewer = 0 < theirs["steps"] < own["steps"]  # its last answer was lost
    if theirs["steps"] > own["steps"]:
        raise ClaimRefuted(f"{signed.SERVER_REPORT}: {theirs['steps']} steps stand, the ledger has {own['steps']}")
    chosen = not report["accounting"]["silos"][0]["curve"] and own["epsilon"] is not None  # of several runs
    names = [*_EITHER_WAY, *([] if fewer else ["steps", "epsilon_of_steps_taken", "odometer"])]
    if theirs["steps"] and not chosen:
        follows = {name: own[name] for name in names}
        hold("claim", theirs, follows, f"the ledger of {own['silo']!r}", signed.SERVER_REPORT)
