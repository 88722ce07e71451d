"""A report's folder, verified by little: what is checked of it, and what is not.

    1. report.json is in its one form, and its signature is of the key that it names
    2. every file that it is of is the one that was signed; a page of another hash is a changed page
    3. each ledger verifies entry by entry, under the key that is known, against every head in the folder; it is the one
       that the report is of; a countersignature is for the model that lies here
    4. rounds are those of scenario.toml, and each whole one is a sum of as many silos as that asks for; each silo in
       the sum has a charge in its ledger, to the round's own part of what it reserved, or reported one; of a run that
       kept no ledger, the book has one, and none of what 5 says is computed again
    5. what a report says of each ledger follows from it: claim, budgets, runs, overrides, PLD, RDP and the curve; so
       do what was done at each silo, as planned and as charged, and the epsilons in the lines of rounds. Unit and
       records of a unit are those of scenario.toml. Where no ledger is here, so are delta, the plan's steps and what
       silos reported of a round: lots, clip, mechanism, source of noise, and noise, at most what a target needs.
       Nothing is claimed of a run whose noise is from a seed or left out
    6. `summary.json` says the same epsilon and steps
    7. in a silo's own folder: the server's report is signed by the server, is for this silo and run, and agrees with
       the ledger

Guarantee: what `verify` returns for a folder holds, each line of it; what could not be checked is in `Found.gaps` or in
`NOT_RECOMPUTED`. Nothing in the folder is run, and nothing is written.

Does NOT recompute `NOT_RECOMPUTED`. `fedmodel report verify` does, with all of fedmodel.
"""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from fedmodel.errors import ClaimRefuted, LedgerError, LedgerTampered
from fedmodel.ledger import Standing, origin_of
from fedmodel.ledger.heads import open_head
from fedmodel.privacy import accounting
from fedmodel.privacy.events import EPSILON_IF_HIDDEN, EXPERIMENT, IF_HIDDEN, Event
from fedmodel.privacy.mechanisms import event_from_json
from fedmodel.privacy.rounding import small, up
from scenarios.report.verifier import figures, planned, rounds, signed
from scenarios.report.verifier.figures import Held
from scenarios.report.verifier.holding import Found, hold, hold_rows
from scenarios.report.verifier.keys import Keys, keys_of
from scenarios.report.verifier.ledgers import check_names, check_newest, ledgers_of
from scenarios.report.verifier.signers import check_models, check_signer
from scenarios.report.verifier.summary import check_summary
from scenarios.runs import words
from scenarios.runs.line_bounds import check_bounds

NOT_RECOMPUTED: Final = (
    "PRV, the accountant of another library",
    "the page and the registry's entry: they are the files that were signed, and may say anything",
    "the audit",
    "what else follows from scenario.toml than the plan's figures: under which trust, that its hash is the one in the"
    " ledgers, and, where ledgers are here, what noise a target needs",
    "how budgets were spent over time",
    "figures of the model, which the server measured",
    "sentences, the claim's own too",
)
_FIGURES: Final = "claim, PLD, RDP, privacy curve"


def verify(
    folder: Path,
    authority: str | None = None,
    silo_keys: Sequence[str] = (),
    key: str | None = None,
    model: Path | None = None,
) -> Found:
    """Check a report's folder.

    Args:
        folder: Of a run, or of a silo's own report.
        authority: The fingerprint, or the key, of who signed the roster, from elsewhere.
        silo_keys: Silos' public keys, as NAME=HEX, from elsewhere.
        key: The server's public key, from elsewhere.
        model: The model, opened, where it lies sealed or not at all.

    Raises:
        ConfigError: When there is no report, or something given is in no such form.
        ClaimRefuted: When a figure does not follow; the first that does not is named.
        LedgerTampered: When a file, a ledger, a signature or a roster is not as it was written.
    """
    report, signer = signed.read(folder / signed.REPORT)
    try:
        files = signed.check_files(folder, report)
        keys = keys_of(folder, authority, silo_keys, key)
        found = Found(_claim_in_words(report), signer.hex())
        _check(folder, report, signer, keys, model, found)
        found.items.append(("files", ", ".join(files)))
    except OSError as error:
        raise LedgerError(f"{error.filename or folder}: cannot be read: {error.strerror}") from None
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError) as error:
        told = f"{type(error).__name__}: {error}"
        raise LedgerTampered(f"{folder}: is not in the form of a report's folder ({told})") from None
    return found


def _check(
    folder: Path, report: Mapping[str, Any], signer: bytes, keys: Keys, model: Path | None, found: Found
) -> None:
    run, silos = report["run"], [row["silo"] for row in report["claim"]["silos"]]
    scenario = tomllib.loads((folder / "scenario.toml").read_text(encoding="utf-8"))
    _check_silos(report, silos, scenario)
    copy = run.get("copy_for") is not None
    lines, besides = (read(folder, scenario, silos, copy=copy) for read in (rounds.read, rounds.read_besides))
    ledgers: dict[str, Held] = {}
    if run.get("booked", False):
        _check_booked(folder, report, lines, found)
    elif run.get("reported", False):
        _check_reported(folder, report, lines, keys, found, scenario)
    else:
        for held, told in ledgers_of(folder, report, keys):
            ledgers[held.silo] = held
            found.items.append((f"ledger {held.silo}", told))
        check_newest(report, ledgers)
        check_names(report, ledgers)
        _check_figures(report, ledgers, scenario)
        check_models(folder, report, ledgers, model, found)
        runs = {one.silo: one.own for one in ledgers.values()}
        rounds.check_charged([*lines, *besides], runs, planned.firsts(scenario))
        _check_lines(lines, {silo: own.plan for silo, own in runs.items() if own is not None}, scenario)
        found.items.append(("figures", f"of {words.counted(len(silos), 'silo')} follow: {_FIGURES}"))
    _check_claim(report, ledgers, scenario)
    check_summary(folder, report, scenario, goes_on=any(held.goes_on for held in ledgers.values()))
    check_signer(folder, report, signer, keys, found, ledgers)
    found.gaps += [
        f"nothing from outside vouches for the key of silo {silo}" for silo in silos if silo not in keys.anchored
    ]


def _check_silos(report: Mapping[str, Any], silos: Sequence[str], scenario: Mapping[str, Any]) -> None:
    """Refuse a report of other silos than the scenario's, or than the one whose copy it is, or of another's ledger.

    A sum of silos whom nobody knows would be charged to them, and to no silo of the claim.
    """
    run, known = report["run"], scenario["federation"]["silos"]
    of = run.get("copy_for")
    if silos != (known if of is None else [of]) or (of is not None and (of not in known or run["silos"] != known)):
        raise ClaimRefuted("claim.silos: are not the silos of scenario.toml")
    if others := sorted({head["silo"] for head in report["integrity"]["ledgers"]} - set(silos)):
        raise LedgerTampered(f"integrity.ledgers: has one of {others[0]}, of whom this report is not")


def _check_figures(report: Mapping[str, Any], ledgers: Mapping[str, Held], scenario: Mapping[str, Any]) -> None:
    """Refuse a report of which a figure does not follow from the ledgers."""
    for claimed, counted in zip(report["claim"]["silos"], report["accounting"]["silos"], strict=True):
        silo = claimed["silo"]
        held = ledgers.get(silo, Held(silo, (), Standing(), None, "", goes_on=False))
        row = figures.claim(held, planned.delta(scenario, silo))
        # A label of an experiment's noise is that of such noise alone.
        labels = {EPSILON_IF_HIDDEN: row.get(EPSILON_IF_HIDDEN)} if EPSILON_IF_HIDDEN in claimed else {}
        hold(f"claim.silos[{silo}]", claimed, {**row, **labels}, silo)
        follows = figures.accounting_row(held.claimed, row["delta"], chosen=held.others, counted=counted)
        hold(f"accounting.silos[{silo}]", counted, {"silo": silo, **follows}, silo)
        own = held.own
        _check_mechanism(report, silo, scenario, figures.charged(None if own is None else own.plan, row["steps"]))
    budgets = [budget for held in ledgers.values() for budget in figures.budgets(held)]
    hold_rows("scope.budgets", report["scope"]["budgets"], budgets)
    changed = [change for held in ledgers.values() for change in figures.overrides(held)]
    hold_rows("integrity.overrides", report["integrity"]["overrides"], changed)
    data = {report["scope"]["data_sets"][0]["name"]}
    mine = [one for one in budgets if one["data"] in data or any(run["this"] for run in one["runs"])]
    bounds = [one["bound"] for one in mine]
    largest = None if None in bounds else max(bounds, default=0.0)
    prior = sum(not run["this"] for one in budgets for run in one["runs"])
    told = {"prior_runs": prior, "largest_bound": largest, "protects": all(one["protects"] for one in mine)}
    hold("scope", report["scope"], told, "the ledgers")


def _check_reported(
    folder: Path,
    report: Mapping[str, Any],
    lines: Sequence[Mapping[str, Any]],
    keys: Keys,
    found: Found,
    scenario: Mapping[str, Any],
) -> None:
    """Refuse a report of which a figure does not follow from what silos reported.

    Where a run does more than training, what that is charged as follows from the scenario, and no figure is compared.
    """
    charges = json.loads((folder / "charges.json").read_bytes())
    run = json.loads((folder / "run.json").read_bytes())
    if report["run"]["run"] != run["run"]:
        raise ClaimRefuted("run.run: is not the number in run.json")
    if report["run"].get("name") not in (None, run.get("name")):
        raise ClaimRefuted("run.name: is not the name in run.json")
    if others := sorted(charges.keys() - {row["silo"] for row in report["claim"]["silos"]}):
        raise LedgerTampered(f"charges.json: has {others[0]}, of whom this report is not")
    events = {silo: event_from_json(said["event"]) for silo, said in charges.items()}
    for silo, event in events.items():
        planned.check_event(scenario, silo, event)
    if scenario.get("besides"):
        found.claim = "NOT computed again"
        for row in report["claim"]["silos"]:
            told = {"delta": planned.delta(scenario, row["silo"])}
            hold(f"claim.silos[{row['silo']}]", row, told, "scenario.toml")
        found.gaps.append("NO figure was computed again: the run did jobs besides training, and no ledger is here")
    else:
        _check_reported_figures(report, charges, scenario)
        counted = words.counted(len(report["claim"]["silos"]), "silo")
        found.items.append(("figures", f"of {counted} follow from what they reported: {_FIGURES}"))
    for claimed in report["claim"]["silos"]:
        steps = sum(planned.drawn(scenario, claimed["silo"], charges.get(claimed["silo"])))
        _check_mechanism(report, claimed["silo"], scenario, figures.charged(events.get(claimed["silo"]), steps))
    _check_lines(lines, events, scenario)
    if report["scope"]["budgets"] or report["scope"]["largest_bound"] is not None:
        raise ClaimRefuted("scope: says what no report without a ledger can")
    for place, phase in enumerate(planned.phases(scenario, scenario["federation"]["silos"][0])):
        own = [line for line in lines if phase.first <= line["round"] < phase.first + phase.rounds]
        reported = {silo: planned.rounds_of(scenario, silo, said)[place] for silo, said in charges.items()}
        rounds.check_charged(own, reported)
    for head in report["integrity"]["ledgers"]:
        silo, public = head["silo"], keys.silos.get(head["silo"], b"")
        note = (folder / "server" / "heads" / silo).read_bytes()
        at = open_head(note, origin_of(silo), public)
        if (note.decode(), at.size, at.root.hex(), public.hex()) != (
            head["head"], head["head_entries"], head["root"], head["key"],
        ):  # fmt: skip
            raise LedgerTampered(f"the head of silo {silo}'s ledger is another than the report is of")
        found.items.append(
            (f"ledger {silo}", f"NOT here: what the silo reported; the server kept its head of {at.size}")
        )
    found.gaps.append("no ledger is here: the figures are what silos reported to the server")


def _check_booked(folder: Path, report: Mapping[str, Any], lines: Sequence[Mapping[str, Any]], found: Found) -> None:
    """Refuse a report of a run without ledgers of which an update in a sum was not entered in its book."""
    first, *entered = rounds.lines_of(folder / signed.BOOK)
    if first["run"] != report["run"]["run"] or first["signer"] != report["integrity"]["signer"]:
        raise LedgerTampered(f"{signed.BOOK}: is of another run or key than the report")
    charged = Counter(silo for line in entered for silo in line["charged"])
    rounds.check_charged(lines, dict(charged))
    found.claim = "NOT computed again"
    found.items.append(("ledgers", f"NONE was kept: {signed.BOOK} has a charge for each update in a sum"))
    found.gaps.append("simulated, and no ledger was kept: NO figure was computed again, and no silo signed anything")


def _check_reported_figures(report: Mapping[str, Any], charges: Mapping[str, Any], scenario: Mapping[str, Any]) -> None:
    """Refuse a figure that does not follow from what silos reported of the plan that the scenario says.

    Neither the length of the plan nor delta is taken from the report: fewer steps, or a larger delta, tell less.
    """
    for claimed, counted in zip(report["claim"]["silos"], report["accounting"]["silos"], strict=True):
        silo = claimed["silo"]
        delta, said = planned.delta(scenario, silo), charges.get(silo)
        if said is None:
            row, events = figures.claim(Held(silo, (), Standing(), None, "", goes_on=False), delta), []
        else:
            drawn = planned.drawn(scenario, silo, said)
            events = planned.parts(scenario, silo, event_from_json(said["event"])) if any(drawn) else []
            row = figures.claim_reported(events, drawn, delta)
        hold(f"claim.silos[{silo}]", claimed, row, silo)
        follows = figures.accounting_row(events, delta, chosen=False, counted=counted)
        hold(f"accounting.silos[{silo}]", counted, {"silo": silo, **follows}, silo)


def _check_mechanism(
    report: Mapping[str, Any], silo: str, scenario: Mapping[str, Any], charged: Mapping[str, Any]
) -> None:
    """Refuse what a report says that was done at a silo, if the scenario plans other or the silo was charged other."""
    (row,) = [one for one in report["mechanism"]["silos"] if one["silo"] == silo]
    hold(f"mechanism.silos[{silo}]", row, planned.mechanism(scenario, silo), "scenario.toml")
    hold(f"mechanism.silos[{silo}]", row, charged, silo)


def _check_lines(lines: Sequence[Mapping[str, Any]], events: Mapping[str, Event], scenario: Mapping[str, Any]) -> None:
    """Refuse lines that say another epsilon of a silo's whole plan than follows from its event of the first phase."""
    costs = {}
    for silo, event in events.items():
        whole = [*planned.parts(scenario, silo, event), *planned.besides(scenario)]
        costs[silo] = accounting.epsilon(whole, planned.delta(scenario, silo), accounting.COARSE_GRID)
    check_bounds(lines, costs, hidden=planned.noise_name(scenario) == EXPERIMENT)


def _check_claim(report: Mapping[str, Any], ledgers: Mapping[str, Held], scenario: Mapping[str, Any]) -> None:
    """Refuse a claim of less than one of its silos has, of another unit, or that protects where a silo is not."""
    claim = report["claim"]
    epsilons = [row["epsilon"] for row in claim["silos"]]
    told = {
        "epsilon": None if None in epsilons else max(epsilons),
        "delta": max(row["delta"] for row in claim["silos"]),
    }
    if EPSILON_IF_HIDDEN in claim or any(EPSILON_IF_HIDDEN in row for row in claim["silos"]):
        told[EPSILON_IF_HIDDEN] = max(row.get(EPSILON_IF_HIDDEN, 0.0) for row in claim["silos"]) or None
    hold("claim", claim, told, "the ledgers")
    hold("claim", claim, planned.whose(scenario), "scenario.toml")
    for silo, held in ledgers.items():
        if held.scope is not None:
            scope = held.standing.scopes[held.scope]
            hold("claim", claim, {"unit": scope.unit, "max_records": scope.max_records}, f"the ledger of {silo!r}")
    if claim["protects"] and None in epsilons:
        raise ClaimRefuted("claim.protects: true stands, and of a silo nothing is bounded")
    if not planned.protects(scenario) and (claim["protects"] or claim["epsilon"] is not None):
        raise ClaimRefuted("claim: says that it protects, and by scenario.toml noise is left out or is from a seed")


def _claim_in_words(report: Mapping[str, Any]) -> str:
    """Say what is claimed, by figures that were found to follow."""
    claim = report["claim"]
    if (would := claim.get(EPSILON_IF_HIDDEN)) is not None:
        at = f"{up(would)} at delta {small(claim['delta'])} {IF_HIDDEN}"
        return f"nothing: noise was an experiment's, from a seed; epsilon would be {at}"
    if not claim["protects"]:
        return "nothing: no noise was added, it was seeded, or there is no bound"
    whose = report["run"].get("copy_for") or f"each of {words.counted(len(claim['silos']), 'silo')}"
    return f"epsilon at most {up(claim['epsilon'])} at delta {small(claim['delta'])} for one {claim['unit']} of {whose}"
