"""Who countersigned a run's end, for which model, and whose word the claim rests on where somebody did not.

A silo's countersignature is an entry of its ledger (`fedmodel.ledger.entries.COUNTERSIGNED`): under its key, over the
run, the scenario, one model's hash and, by the chain, every entry before it.

An end of a run that the silo was not charged for says nothing of a model: it counts for none.

Guarantee: of the ledgers that `check_models` passes, none countersigned this run for another model than the one in the
folder, nor two of them for two.

Does NOT tell a silo that was gone at the run's end from one whose newest entries a server took away: both have none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from fedmodel.errors import LedgerTampered
from scenarios.runs import words
from scenarios.runs.ledgers import SiloLedger

MODEL: Final = "model.safetensors"


def countersigned(ledgers: Mapping[str, SiloLedger]) -> dict[str, str]:
    """Return the hash of the model that each silo countersigned the run's end for.

    Left out is who did not, or was charged for nothing of that run.
    """
    return {silo: run.model for silo, ledger in ledgers.items() if (run := ledger.countersigned) is not None}


def without(silos: Iterable[str], ledgers: Mapping[str, SiloLedger]) -> list[str]:
    """Return the silos that did not countersign the run's end."""
    found = countersigned(ledgers)
    return [silo for silo in silos if silo not in found]


def check_models(run_dir: Path, ledgers: Mapping[str, SiloLedger], model: str | None) -> None:
    """Refuse a folder whose model is not the one that silos countersigned the run's end for.

    Args:
        run_dir: The run's folder.
        ledgers: By silo.
        model: SHA-256 of the model, None where it is not at hand but sealed.

    Raises:
        LedgerTampered: When one countersigned for another.
    """
    named = countersigned(ledgers)
    for silo, told in named.items():
        if model is not None and told != model:
            raise LedgerTampered(
                f"silo {silo}: countersigned the run's end for model {told[:16]}..., and the model of {run_dir} is"
                f" {model[:16]}...: these ledgers are not of this model"
            )
    if len(set(named.values())) > 1:
        raise LedgerTampered(f"{run_dir}: its silos countersigned the run's end for {len(set(named.values()))} models")


def rests_on(silos: Iterable[str], ledgers: Mapping[str, SiloLedger]) -> str:
    """Say on whose word it rests that the ledgers are whole, and are of this run and this model."""
    silos = list(silos)
    if any(ledger.booked for ledger in ledgers.values()):
        return (
            "Simulated: no ledger was kept. These figures follow from the book in which the one process that simulated"
            " all silos entered what it charged each of them. That the book is whole, and is of this run and this"
            " model, is the word of whoever ran it: no silo signed anything."
        )
    if any(ledger.reported for ledger in ledgers.values()):
        return (
            "No ledger was at hand: these figures follow from what silos reported to the server, which signs them."
            " That a silo's ledger says the same, only the silo's own copy of this report shows, which the silo signs."
        )
    missing = without(silos, ledgers)
    signed = [silo for silo in silos if silo not in missing]
    each = (
        f"{words.listed(signed)} countersigned {'its' if len(signed) == 1 else 'their'} ledger at the run's end, for"
        " this run and for the hash of the model that the server named: that no entry of the run is missing there is"
        " the silo's own word."
    )
    none = (
        f"There is no countersignature of {words.listed(missing)}: that nothing is missing at the end of"
        f" {'that ledger' if len(missing) == 1 else 'those ledgers'} is the word of the run's server alone."
    )
    return " ".join(one for one, applies in ((each, signed), (none, missing)) if applies)
