"""What a run's folder says, read once and checked: scenario, summary, rounds, and every silo's ledger, verified.

Guarantee: every whole round of `metrics.jsonl` is a sum of the scenario's least number of silos or more, each of which
its ledger says was charged for that round: so some silos were charged for whatever has a claim. No silo countersigned
the run's end for another model than the one that lies here, and the model has the parameters that the scenario says.
What describes the model to others, where it lies here, is what follows from the scenario.

Does NOT show that the model came out of these rounds: no silo sees what the others added.

Does NOT take a figure of privacy from `summary.json`: `scenarios.report.build` compares that with the ledgers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from fedmodel.config import Scenario, SiloFile, read_scenario
from fedmodel.errors import ClaimRefuted, ConfigError, LedgerError, LedgerTampered
from fedmodel.learning.description import DESCRIPTION, describe, read_description
from fedmodel.learning.starts import START
from fedmodel.provision import is_kit, read_law, scenario_hash
from scenarios.report.countersigned import MODEL, check_models
from scenarios.report.document import Report
from scenarios.report.page_check import PICTURES
from scenarios.runs.audit_entries import AUDIT_FILE, PLAN_FILE
from scenarios.runs.files import read_object, read_rounds, read_summary
from scenarios.runs.ledgers import SiloLedger, read_ledgers
from scenarios.simulation.starting import check_carried

SUMMARY: Final = "summary.json"
SCENARIO: Final = "scenario.toml"
METRICS: Final = "metrics.jsonl"
_MODELS: Final = (MODEL, f"{MODEL}.age")
_FILES: Final = (SCENARIO, SUMMARY, METRICS, START, *_MODELS, "charges.json", PLAN_FILE, AUDIT_FILE, PICTURES)


@dataclass(frozen=True)
class Gathered:
    """What a run's folder says.

    Attributes:
        run_dir: The folder.
        scenario: What was done.
        summary: What `summary.json` says.
        lines: Of `metrics.jsonl`.
        ledgers: By silo; a silo that never opened one is not in it.
        audit: What `audit.json` says, None where there is none.
        signer: The key of the run's server, as the silos' laws have it; None where no law is at hand.
        model: SHA-256 of the model; None where it lies here sealed.
    """

    run_dir: Path
    scenario: Scenario
    summary: dict[str, Any]
    lines: list[dict[str, Any]]
    ledgers: Mapping[str, SiloLedger]
    audit: dict[str, Any] | None
    signer: bytes | None
    model: str | None

    @property
    def simulated(self) -> bool:
        """Whether all silos shared one process's machine, with keys that lie open."""
        return bool(self.summary["engine"] != "deployment")

    def files(self) -> dict[str, str]:
        """Return the SHA-256 of the folder's files, by name."""
        return {name: file_hash(self.run_dir / name) for name in _FILES if (self.run_dir / name).is_file()}


def read_run(run_dir: Path, stored: Report | None = None) -> Gathered:
    """Read a run's folder, and verify its ledgers.

    Args:
        run_dir: The folder.
        stored: The report that is verified; its ledgers are read up to what it says.

    Raises:
        ConfigError: When it is no folder of a run that has ended, or holds no ledger.
        LedgerError: When a file is not as a run writes it.
        LedgerTampered: When a ledger is not as it was written, or does not extend a head that is known, or was not
            charged for an update that is in a sum, or countersigned the run's end for another model; when a whole round
            has fewer silos in its sum than the scenario asks for; when a ledger does not hold the run that this one
            began from; when the model is described otherwise than by the scenario.
        ClaimRefuted: When the summary has another number of parameters than the scenario's model.
    """
    for name in (SCENARIO, SUMMARY, METRICS):
        if not (run_dir / name).is_file():
            raise ConfigError(f"{run_dir}: holds no {name}, so it is not the folder of a run that has ended")
    scenario = _read_scenario(run_dir / SCENARIO)
    kept = {} if stored is None else {head.silo: head for head in stored.integrity.ledgers}
    ledgers = read_ledgers(run_dir, scenario, kept)
    if not ledgers:
        raise ConfigError(
            f"{run_dir}: holds no ledger, and a report is computed from ledgers; put copies of the"
            f" silos' at {run_dir / 'ledgers'}/NAME.sqlite"
        )
    summary, lines = read_summary(run_dir / SUMMARY), read_rounds(run_dir / METRICS)
    if lines[-1]["round"] > scenario.rounds:
        raise LedgerError(f"{run_dir / METRICS}: has round {lines[-1]['round']}, and the scenario {scenario.rounds}")
    _check_charged(scenario, lines, ledgers)
    check_carried(scenario, {silo: ledger.standing for silo, ledger in ledgers.items()})
    _check_start(scenario, run_dir, simulated=summary["engine"] != "deployment")
    _check_parameters(scenario, summary["parameters"])
    _check_description(scenario, run_dir / DESCRIPTION)
    model = file_hash(run_dir / MODEL) if (run_dir / MODEL).is_file() else None
    check_models(run_dir, ledgers, model)
    return Gathered(
        run_dir,
        scenario,
        summary,
        lines,
        ledgers,
        read_object(run_dir / AUDIT_FILE) if (run_dir / AUDIT_FILE).exists() else None,
        _signer(run_dir, scenario, summary["code_hash"]),
        model,
    )


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    return sha256(path.read_bytes()).hexdigest()


def _read_scenario(path: Path) -> Scenario:
    """Read what was done, which a run wrote itself: what cannot be read is not as it was written."""
    try:
        return read_scenario(str(path))
    except ConfigError as error:
        raise LedgerTampered(f"{path}: is not as the run wrote it: {error}") from None


def _check_charged(scenario: Scenario, lines: Sequence[Mapping[str, Any]], ledgers: Mapping[str, SiloLedger]) -> None:
    """Refuse whole rounds that are no sum of enough silos, each of which was charged for it.

    A ledger whose newest entries were taken away is well signed still, and one of a run that took no round has no
    charge: the silos are in the sums of the rounds all the same, or there were none.
    """
    for line in lines:
        if "failed" in line:
            continue
        number, answered = line["round"], sorted(set(line["cohort"]) - line["dropouts"].keys())
        for silo in answered:
            if silo not in ledgers:
                raise LedgerTampered(
                    f"silo {silo}: its update is in round {number} of {METRICS}, and no ledger is here"
                )
            if number not in ledgers[silo].rounds:
                raise LedgerTampered(
                    f"silo {silo}: its update is in round {number} of {METRICS}, and its ledger has no charge for that"
                )
        if line["summed"] != len(answered):
            raise LedgerTampered(
                f"{METRICS}: round {number} has {line['summed']} updates in its sum, and {len(answered)} silos of its"
                " cohort did not drop out"
            )
        if len(answered) < scenario.federation.min_silos:
            raise LedgerTampered(
                f"{METRICS}: round {number} is whole with {len(answered)} silos in its sum, and the scenario asks for"
                f" {scenario.federation.min_silos}: a model that nobody was charged for has no claim"
            )


def _check_start(scenario: Scenario, run_dir: Path, *, simulated: bool) -> None:
    """Refuse a folder whose copy of what the run began from is another file, and a simulation that names no ledgers."""
    if simulated and scenario.start is not None and scenario.goes_on and not scenario.start.silos:
        raise LedgerTampered(
            f"{run_dir / SCENARIO}: begins from a run's model, and names no ledger that goes on from it"
        )
    path = run_dir / START
    if not path.is_file():  # a deployed server's lies with it, sealed
        return
    if scenario.start is None or file_hash(path) != scenario.start.sha256:
        raise LedgerTampered(f"{path}: is not what the run began from, by the hash that {SCENARIO} has")


def _check_parameters(scenario: Scenario, told: int) -> None:
    """Refuse a summary of another model than the scenario's: how many draws of noise there were hangs on it."""
    from fedmodel.learning.models import parameters_of

    follows = parameters_of(scenario.model, scenario.data.shape)
    if told != follows:
        raise ClaimRefuted(f"{SUMMARY}: parameters: {told} stands, {follows} follows from {SCENARIO}")


def _check_description(scenario: Scenario, path: Path) -> None:
    """Refuse a description by which the model would be used otherwise than the scenario says; runs of old have none."""
    if not path.exists():
        return
    try:
        told = read_description(path)
    except ConfigError as error:
        raise LedgerTampered(f"{path}: is not as the run wrote it: {error}") from None
    if told != describe(scenario, scenario_hash(scenario)):
        raise LedgerTampered(f"{path}: describes the model otherwise than {SCENARIO} does; whoever uses it is misled")


def _signer(run_dir: Path, scenario: Scenario, code: str) -> bytes | None:
    """Return the server's key that the laws of all silos at hand name; hold them to the code that ran."""
    keys: set[str] = set()
    for silo, folder in _kits(run_dir, scenario.federation.silos):
        law = _read_law(folder)
        if law.code and code not in law.code:
            raise LedgerTampered(f"{run_dir / SUMMARY}: says that code {code[:16]}... ran, which silo {silo} refuses")
        keys.update(law.servers)
    if len(keys) > 1:
        raise LedgerTampered(f"{run_dir}: the silos' laws name {len(keys)} keys of servers, and a run has one")
    return bytes.fromhex(keys.pop()) if keys else None


def _read_law(folder: Path) -> SiloFile:
    try:
        return read_law(folder)
    except ConfigError as error:
        raise LedgerTampered(f"{folder}: its law is not as it was written: {error}") from None


def _kits(run_dir: Path, silos: Sequence[str]) -> Iterator[tuple[str, Path]]:
    for silo in silos:
        for above in (run_dir / "silos", run_dir / "kits" / "silos"):
            if is_kit(above / silo):
                yield silo, above / silo
