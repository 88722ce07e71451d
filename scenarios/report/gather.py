"""What a run's folder says, read once and checked: scenario, summary, rounds, and every silo's ledger, verified.

Guarantee: every whole round of `metrics.jsonl` is a sum of the scenario's least number of silos or more, each of which
its ledger says was charged for that round: so some silos were charged for whatever has a claim. No silo countersigned
the run's end for another model than the one that lies here, and the model has the parameters that the scenario says.
Of a model of the user's own, which is not run to read this, it has no more than its file has numbers, where that lies
here open; how many of these were trained is the summary's word, and a report says so.
What describes the model to others, where it lies here, is what follows from the scenario.

A simulation whose engine kept no ledgers has a book (`scenarios.runs.event_book`), from which the same follows.

A deployed server has no ledger. Its folder says what silos reported (`scenarios.runs.reported`), and a report of that
says so: there a round's silos have to have reported as many charges as there are sums that they are in. A silo's copy
(`scenarios.report.copies`) has the lines of rounds without other silos' names.

Does NOT show that the model came out of these rounds: no silo sees what the others added.

Does NOT take a figure of privacy from `summary.json`: `scenarios.report.build` compares that with the ledgers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from fedmodel import plans
from fedmodel.config import Scenario, SiloFile, read_scenario
from fedmodel.errors import ClaimRefuted, ConfigError, FedmodelError, LedgerError, LedgerTampered
from fedmodel.learning.description import DESCRIPTION, describe, read_description
from fedmodel.learning.starts import START, numbers_in
from fedmodel.learning.tasks import figures_of
from fedmodel.privacy import accounting
from fedmodel.privacy.events import EXPERIMENT
from fedmodel.provision import FederationRoster, bases_of, is_kit, read_federation_roster, read_law, scenario_hash
from fedmodel.provision.kits import ROSTER_FILE
from fedmodel.system.counts import counted
from scenarios.report.countersigned import MODEL, check_models
from scenarios.report.document import Report
from scenarios.report.page_check import PICTURES
from scenarios.runs.audit_entries import AUDIT_FILE, PLAN_FILE
from scenarios.runs.event_book import BOOK, is_booked, read_booked, signer_of
from scenarios.runs.explanation import EXPLANATION, Explanation, read_explanation
from scenarios.runs.files import read_besides, read_object, read_rounds, read_summary
from scenarios.runs.ledgers import SiloLedger, read_ledgers
from scenarios.runs.line_bounds import check_bounds
from scenarios.runs.reported import name_of, number_of, read_reported
from scenarios.runs.summary import COPY_FOR, OTHERS, TOLD_MODEL
from scenarios.runs.usefulness import told_of
from scenarios.simulation.starting import check_carried
from server.metrics import BESIDES
from server.run_files import CHARGES
from server.runs import RUN
from server.usefulness import USEFULNESS

SUMMARY: Final = "summary.json"
SCENARIO: Final = "scenario.toml"
METRICS: Final = "metrics.jsonl"
SERVER_REPORT: Final = "server-report.json"
"""In a silo's folder, the report that the server signed for it."""
_MODELS: Final = (MODEL, f"{MODEL}.age")
_FILES: Final = (SCENARIO, SUMMARY, METRICS, BESIDES, START, *_MODELS, CHARGES, BOOK, PLAN_FILE, AUDIT_FILE)
_LATER: Final = (USEFULNESS, RUN, SERVER_REPORT, EXPLANATION)
"""Files of which no earlier report is, though they may lie in its folder."""


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
        laws: The silos' laws that are at hand, by silo.
        signer: The key that signs: of the run's server, as the silos' laws or a federation's roster have it, None where
            neither is at hand; of a silo's copy with its ledger, the silo's.
        model: SHA-256 of the model; None where it lies here sealed.
        silos: Those that the report is of: the scenario's, or the one whose copy it is.
        copy_for: The silo whose copy it is; None where it is no copy.
        reported: Whether no ledger is here, and `ledgers` is what silos reported.
        booked: Whether the run kept no ledger, and `ledgers` is what its book says.
        usefulness: In a line, that the model is of no use; None where it is of some.
        explanation: How the model answers, where somebody explained it by the server's held-out records.
        later: Of the files that no earlier report is of, those that this one is.
        numbers: How many numbers the file of a model of the user's own has; None of others, and where none lies here.
    """

    run_dir: Path
    scenario: Scenario
    summary: dict[str, Any]
    lines: list[dict[str, Any]]
    ledgers: Mapping[str, SiloLedger]
    audit: dict[str, Any] | None
    laws: Mapping[str, SiloFile]
    signer: bytes | None
    model: str | None
    silos: tuple[str, ...]
    copy_for: str | None
    reported: bool
    booked: bool
    usefulness: str | None
    explanation: Explanation | None
    later: tuple[str, ...]
    numbers: int | None

    @property
    def without_ledgers(self) -> bool:
        """Whether no silo's ledger is here."""
        return self.reported or self.booked

    @property
    def by_silo(self) -> bool:
        """Whether it is a silo's own copy, of its ledger, which that silo signs."""
        return self.copy_for is not None and not self.reported

    @property
    def simulated(self) -> bool:
        """Whether all silos shared one process's machine, with keys that lie open."""
        return bool(self.summary["engine"] != "deployment")

    @property
    def rehearsed(self) -> bool:
        """Whether a deployment was rehearsed: its parties were processes of one account on one machine."""
        return "network" in self.summary

    @property
    def name(self) -> str | None:
        """What the run's server calls it: as the ledgers have it, or by the server's word where none is here."""
        if self.reported:
            return name_of(self.run_dir)
        names = [ledger.own.name for ledger in self.ledgers.values() if ledger.own is not None]
        return next(filter(None, names), None)

    def files(self) -> dict[str, str]:
        """Return the SHA-256 of the folder's files, by name."""
        names = (*_FILES, *self.later, PICTURES)
        return {name: file_hash(self.run_dir / name) for name in names if (self.run_dir / name).is_file()}


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
        ClaimRefuted: When the summary has another number of parameters than the scenario's model; when a round's line
            says another epsilon of a silo than follows from what that was charged.
    """
    for name in (SCENARIO, SUMMARY, METRICS):
        if not (run_dir / name).is_file():
            raise ConfigError(f"{run_dir}: holds no {name}, so it is not the folder of a run that has ended")
    scenario = _read_scenario(run_dir / SCENARIO)
    booked = is_booked(run_dir) if stored is None else stored.run.booked
    if booked and stored is None and (run_dir / "ledgers").exists():
        raise LedgerTampered(f"{run_dir}: holds ledgers, and a book that stands for silos without any; take one away")
    reported = not booked and _is_reported(run_dir, stored)
    summary, lines = read_summary(run_dir / SUMMARY), read_rounds(run_dir / METRICS, figures_of(scenario))
    copy_for = _copy_for(run_dir, scenario, summary, lines)
    silos = scenario.federation.silos if copy_for is None else (copy_for,)
    number = None if copy_for is None else number_of(run_dir)
    if booked:
        ledgers = read_booked(run_dir, scenario)
    else:
        ledgers = _ledgers(run_dir, scenario, silos, stored, number, reported=reported)
    if lines[-1]["round"] > scenario.rounds:
        raise LedgerError(f"{run_dir / METRICS}: has round {lines[-1]['round']}, and the scenario {scenario.rounds}")
    _check_charged(scenario, METRICS, lines, ledgers, copy=copy_for is not None)
    _check_charged(scenario, BESIDES, read_besides(run_dir / BESIDES, scenario), ledgers, copy=copy_for is not None)
    check_bounds(lines, _costs(scenario, ledgers), hidden=scenario.privacy.noise_name == EXPERIMENT)
    if not (reported or booked):
        check_carried(scenario, {silo: ledger.standing for silo, ledger in ledgers.items()})
    _check_start(scenario, run_dir, simulated=summary["engine"] != "deployment")
    numbers = _check_parameters(scenario, summary["parameters"], run_dir / MODEL)
    _check_description(scenario, run_dir / DESCRIPTION)
    model = file_hash(run_dir / MODEL) if (run_dir / MODEL).is_file() else None
    check_models(run_dir, ledgers, model or summary.get(TOLD_MODEL))
    later = _later(run_dir, stored, reported=reported, copy=copy_for is not None)
    laws = {silo: _read_law(folder) for silo, folder in kits_of(run_dir, scenario.federation.silos)}
    return Gathered(
        run_dir=run_dir,
        scenario=scenario,
        summary=summary,
        lines=lines,
        ledgers=ledgers,
        audit=read_object(run_dir / AUDIT_FILE) if (run_dir / AUDIT_FILE).exists() else None,
        signer=ledgers[copy_for].standing.key
        if copy_for in ledgers and not reported
        else signer_of(run_dir)
        if booked
        else _signer(run_dir, laws, summary["code_hash"]),
        laws=laws,
        model=model,
        silos=silos,
        copy_for=copy_for,
        reported=reported,
        booked=booked,
        usefulness=_usefulness(run_dir) if USEFULNESS in later else None,
        explanation=_explanation(run_dir / EXPLANATION, scenario, model or summary.get(TOLD_MODEL))
        if EXPLANATION in later
        else None,
        later=later,
        numbers=numbers,
    )


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    return sha256(path.read_bytes()).hexdigest()


def _is_reported(run_dir: Path, stored: Report | None) -> bool:
    """Return whether a report is of what silos reported to their server; refuse a folder that has no ledger either."""
    if stored is not None and (stored.run.reported or stored.integrity.ledgers):
        return stored.run.reported
    if any((run_dir / "ledgers").glob("*.sqlite")):
        return False
    if not (run_dir / CHARGES).is_file():
        raise ConfigError(
            f"{run_dir}: holds no ledger, and a report is computed from ledgers; put copies of the"
            f" silos' at {run_dir / 'ledgers'}/NAME.sqlite"
        )
    return True


def _ledgers(
    run_dir: Path, scenario: Scenario, silos: Sequence[str], stored: Report | None, run: str | None, *, reported: bool
) -> dict[str, SiloLedger]:
    """Return the silos' ledgers, or what they reported."""
    if reported:
        return read_reported(run_dir, scenario, silos)
    kept = {} if stored is None else {head.silo: head for head in stored.integrity.ledgers}
    found = read_ledgers(run_dir, scenario, kept, run)
    if others := sorted(set(found) - set(silos)):
        raise LedgerTampered(f"{run_dir / 'ledgers'}: holds a ledger of silo {others[0]}, of whom this report is not")
    return found


def _copy_for(
    run_dir: Path, scenario: Scenario, summary: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]
) -> str | None:
    """Return the silo whose copy a folder is, None where it is none; refuse one that is half of each."""
    silo = summary.get(COPY_FOR)
    if silo is not None and silo not in scenario.federation.silos:
        raise LedgerTampered(f"{run_dir / SUMMARY}: is the copy of {silo!r}, which is no silo of the run")
    for line in lines:
        named = {*line["cohort"], *line["dropouts"], *line["withdrawn"]}
        if (OTHERS in line) != (silo is not None) or (silo is not None and named - {silo}):
            raise LedgerTampered(f"{run_dir / METRICS}: round {line['round']} does not say what {SUMMARY} is a copy of")
    return silo


def _later(run_dir: Path, stored: Report | None, *, reported: bool, copy: bool) -> tuple[str, ...]:
    """Return the files that no earlier report is of, of those that this one is."""
    if stored is not None:
        named = {file.name for file in stored.integrity.files}
        return tuple(name for name in _LATER if name in named)
    of = (
        USEFULNESS,
        *([EXPLANATION] if not copy else []),
        *([RUN] if reported or copy else []),
        *([SERVER_REPORT] if copy and not reported else []),
    )
    return tuple(name for name in of if (run_dir / name).is_file())


def _usefulness(run_dir: Path) -> str | None:
    """Return in a line that the model is of no use, as the server found it at the run's end."""
    try:
        return told_of(run_dir)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise LedgerError(f"{run_dir / USEFULNESS}: is not as a run writes it ({type(error).__name__})") from None


def _explanation(path: Path, scenario: Scenario, model: str | None) -> Explanation:
    """Return how the model answers; refuse what a report may not tell, and what is of another model or scenario."""
    found = read_explanation(path)
    if found.records != "held-out":
        raise ConfigError(
            f"{path}: is of a party's own records, and a report tells of none; take it away, and explain the run on the"
            " server's held-out records"
        )
    if model is None:
        raise ConfigError(
            f"{path}: no {MODEL} lies beside it and none is told of, so nothing says which model it is of; put that"
            " back, or take the explanation away"
        )
    if found.model != model:
        raise LedgerTampered(f"{path}: is of another model than the one that lies here; explain this one")
    if found.scenario_hash != scenario_hash(scenario).hex():
        raise LedgerTampered(f"{path}: is of a model of another scenario than the one that lies here; explain this one")
    return found


def _read_scenario(path: Path) -> Scenario:
    """Read what was done, which a run wrote itself: what cannot be read is not as it was written."""
    try:
        return read_scenario(str(path))
    except ConfigError as error:
        raise LedgerTampered(f"{path}: is not as the run wrote it: {error}") from None


def _check_charged(
    scenario: Scenario, file: str, lines: Sequence[Mapping[str, Any]], ledgers: Mapping[str, SiloLedger], *, copy: bool
) -> None:
    """Refuse whole rounds that are no sum of enough silos, each of which was charged for it.

    A ledger whose newest entries were taken away is well signed still, and one of a run that took no round has no
    charge: the silos are in the sums of the rounds all the same, or there were none. A round is charged to its own part
    of the reservation, so that one whose lots had grown is not charged at the rate of smaller ones. What a silo
    reported has no numbers of rounds: there it is charged, of each part, for no fewer than it is in sums of. In a
    silo's copy, others in a sum are a number.
    """
    sums = Counter[tuple[str, int]]()
    for line in lines:
        if "failed" in line:
            continue
        number, answered = line["round"], sorted(set(line["cohort"]) - line["dropouts"].keys())
        for silo in answered:
            if silo not in ledgers:
                raise LedgerTampered(f"silo {silo}: its update is in round {number} of {file}, and no ledger is here")
            part = scenario.part_of(number)
            sums[silo, part] += 1
            if not ledgers[silo].reported and (number, part) not in ledgers[silo].charged:
                raise LedgerTampered(
                    f"silo {silo}: its update is in round {number} of {file}, and its ledger, or the book of a run"
                    " without ledgers, has no charge for that"
                )
        summed = line["summed"]
        if summed is None or (summed < len(answered) if copy else summed != len(answered)):
            told = "no number of updates" if summed is None else counted(summed, "update")
            raise LedgerTampered(
                f"{file}: round {number} has {told} in its sum, and {counted(len(answered), 'silo')} of its cohort did"
                " not drop out"
            )
        if summed < scenario.federation.min_silos:
            raise LedgerTampered(
                f"{file}: round {number} is whole with {counted(summed, 'silo')} in its sum, and the scenario asks for"
                f" {scenario.federation.min_silos}: a model that nobody was charged for has no claim"
            )
    for (silo, part), count in sums.items():
        reported = sum(one == part for _, one in ledgers[silo].charged)
        if count > reported:
            raise LedgerTampered(
                f"silo {silo}: its update is in {counted(count, 'sum')} of {file} that are charged to part {part + 1}"
                f" of what the run reserves, and it reported {counted(reported, 'charge')} of that"
            )


def _costs(scenario: Scenario, ledgers: Mapping[str, SiloLedger]) -> dict[str, float]:
    """Return the epsilon of the whole plan by silo that was charged, as lines of rounds say it: on the coarse grid."""
    return {
        silo: accounting.epsilon(
            plans.parts_beginning(scenario, silo, ledger.own.plan), scenario.plan(silo).delta, accounting.COARSE_GRID
        )
        for silo, ledger in ledgers.items()
        if ledger.own is not None
    }


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


def _check_parameters(scenario: Scenario, told: int, model: Path) -> int | None:
    """Refuse a summary of another model than the scenario's: how many draws of noise there were hangs on it.

    Returns:
        How many numbers the file of a model of the user's own has, which is never run to read a report, or of one that
        is built on a base, which whoever reads a report need not have.
    """
    if "model.use" in scenario.own_code or bases_of(scenario):
        if not model.is_file():
            return None
        try:
            numbers = numbers_in(model.read_bytes(), str(model))
        except ConfigError as error:
            raise LedgerTampered(str(error)) from None
        if told > numbers:
            raise ClaimRefuted(f"{SUMMARY}: parameters: {told} stands, and {model} has {numbers} numbers in all")
        return numbers
    from fedmodel.learning.models import parameters_of

    follows = parameters_of(scenario.model, scenario.data.shape)
    if told != follows:
        raise ClaimRefuted(f"{SUMMARY}: parameters: {told} stands, {follows} follows from {SCENARIO}")
    return None


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


def _signer(run_dir: Path, laws: Mapping[str, SiloFile], code: str) -> bytes | None:
    """Return the server's key that the laws of all silos at hand name, or a federation's roster where none is.

    The laws are held to the code that ran.
    """
    for silo, law in laws.items():
        if law.code and code not in law.code:
            raise LedgerTampered(f"{run_dir / SUMMARY}: says that code {code[:16]}... ran, which silo {silo} refuses")
    keys = {key for law in laws.values() for key in law.servers}
    if len(keys) > 1:
        raise LedgerTampered(f"{run_dir}: the silos' laws name {len(keys)} keys of servers, and a run has one")
    if not keys and (run_dir / "server" / ROSTER_FILE).is_file():
        keys.add(_roster(run_dir / "server").server.identity)
    return bytes.fromhex(keys.pop()) if keys else None


def _roster(folder: Path) -> FederationRoster:
    try:
        return read_federation_roster(folder, expired_too=True)
    except FedmodelError as error:
        raise LedgerTampered(f"{folder / ROSTER_FILE}: is not as an authority signs it: {error}") from None


def _read_law(folder: Path) -> SiloFile:
    try:
        return read_law(folder)
    except ConfigError as error:
        raise LedgerTampered(f"{folder}: its law is not as it was written: {error}") from None


def kits_of(run_dir: Path, silos: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """Go through the silos' kits that a run's folder holds: a simulation's, or a rehearsal's."""
    for silo in silos:
        for above in (run_dir / "silos", run_dir / "kits" / "silos"):
            if is_kit(above / silo):
                yield silo, above / silo
