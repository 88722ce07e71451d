"""What a run left behind, summed up: the same keys for every engine, and for a deployment.

Figures of privacy are replayed from each silo's own ledger where that is at hand, as in a simulation or a rehearsal. A
deployed server has none of them: there a row says what the silo reported to have charged, and says so (`source`).
Either way a row is of the one run, whatever else a ledger holds, and of what that began from, if it was a run and the
ledger is at hand; and `epsilon` with all that is read off the same curve
is of the whole plan that was reserved: it holds wherever the run ended (`scenarios.runs.claims`).
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedmodel import plans
from fedmodel.config import Scenario
from fedmodel.errors import LedgerError, ProtocolError
from fedmodel.learning.tasks import figures_of
from fedmodel.ledger import Standing, entries
from fedmodel.ledger.runs import phases_in
from fedmodel.privacy import accounting
from fedmodel.privacy.events import Event, is_secret
from fedmodel.privacy.mechanisms import event_from_json
from fedmodel.privacy.plan import SiloPlan
from fedmodel.provision import least_silos, scenario_policy
from fedmodel.secagg import effective_silos
from fedmodel.system.counts import counted
from fedmodel.system.durable import replace_file
from fedmodel.system.packages import code_hash
from scenarios.runs import inspection
from scenarios.runs.claims import claim_in, claim_of, labelled
from scenarios.runs.ledgers import newest_run
from scenarios.runs.own_code import named_code
from scenarios.runs.used import used_names
from server.metrics import BESIDES
from server.run_files import CHARGES

OTHERS = "others"
"""What a silo's copy of a round's line has of silos that are not named in it: `asked`, `gone`, `worth`."""
COPY_FOR = "copy_for"
"""In the summary of a silo's copy, the silo."""
TOLD_MODEL = "model_sha256"
"""In the summary of a deployed server's report, the hash of the model, which lies there sealed."""
_OF_A_ROUND = frozenset(
    ("round", "job", "charged", "noise", "cohort", "summed", "dropouts", "withdrawn", "threshold", "seconds")
)
LEFT_OUT = "left_out"
"""In the summary of a run of another task than classification, or of named figures: those that are not defined."""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a `metrics.jsonl`, none where the file does not exist yet."""
    if not path.exists():
        return []
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    return [json.loads(line) for line in whole.splitlines() if line]


def sum_up(
    scenario: Scenario,
    run_dir: Path,
    seconds: float,
    privacy: list[dict[str, Any]],
    *,
    packages: Mapping[str, str] | None = None,
    code: Sequence[Mapping[str, Any]] | None = None,
    **about: object,
) -> dict[str, Any]:
    """Sum up a run, write `summary.json` into its folder, and return what stands in it.

    Args:
        scenario: What was done.
        run_dir: The run's folder.
        seconds: How long it took in all.
        privacy: A row a silo, of `row_from_ledger` or `rows_reported`.
        packages: Those of others whose files are in the hash of the silos' code, by name and version.
        code: A row for each name of code of the user's own, as noted when it was imported; None where it was here.
        about: What the folder does not say: `engine`, `device`, `parameters`.

    Raises:
        ProtocolError: When no round of it is whole.
    """
    summary = {
        "scenario": scenario.name,
        **about,
        **({} if scenario.start is None else {"start": scenario.start.model_dump(mode="json", exclude_none=True)}),
        **outcome(scenario, run_dir, seconds, privacy),
        "code_hash": code_hash(packages or {}),
        **({"packages": dict(packages)} if packages else {}),
        **({"own_code": named_code(scenario) if code is None else list(code)} if scenario.own_code else {}),
        "seed": scenario.seed,
    }
    replace_file(run_dir / "summary.json", (json.dumps(summary, indent=2, allow_nan=False) + "\n").encode())
    return summary


def outcome(scenario: Scenario, run_dir: Path, seconds: float, privacy: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what a run's own files say of it.

    Raises:
        ProtocolError: When no round of it is whole.
    """
    lines = read_metrics(run_dir / "metrics.jsonl")
    whole = [line for line in lines if "failed" not in line]
    if not whole:
        raise ProtocolError(f"the run left no whole round behind; see {run_dir}")
    dropouts = Counter((silo, code) for line in lines for silo, code in line["dropouts"].items())
    withdrawn = lines[-1]["withdrawn"]
    return {
        "rounds_completed": len(whole),
        "rounds_failed": len(lines) - len(whole),
        "clients": len(scenario.federation.silos),
        "metrics": {key: whole[-1][key] for key in (*figures_of(scenario), "loss") if key in whole[-1]},
        **_left_out(scenario, whole[-1]),
        "used": used_names(scenario),
        "class_weights": scenario.training.class_weights,
        **({} if (decay := scenario.training.ema_decay) is None else {"ema_decay": decay}),
        "privacy": privacy,
        "encryption": _encryption(scenario, whole),
        "dropouts": [
            {"silo": silo, "code": code, "rounds": rounds} for (silo, code), rounds in sorted(dropouts.items())
        ],
        "withdrawn": [{"silo": silo, **left} for silo, left in sorted(withdrawn.items())],
        "ended_early": _ended_early(scenario, lines),
        **({"besides": _besides(run_dir)} if scenario.besides else {}),
        "timing": {
            "seconds_total": round(seconds, 3),
            "seconds_per_round": round(sum(line["seconds"] for line in lines) / len(lines), 4),
        },
    }


def _left_out(scenario: Scenario, line: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return which figures are asked for and not defined; nothing where a classifier's own are, which explain it."""
    if not scenario.metrics and scenario.data.shape.task == "classification":
        return {}
    return {LEFT_OUT: [name for name in figures_of(scenario) if name not in line]}


def _besides(run_dir: Path) -> dict[str, dict[str, Any]]:
    """Return what each job besides training came to, or that it failed; of one that was never asked, nothing."""
    found = {line["job"]: line for line in read_metrics(run_dir / BESIDES)}
    kept = {name: {key: line[key] for key in line if key not in _OF_A_ROUND} for name, line in found.items()}
    return {name: {"silos": found[name]["summed"], **said} for name, said in kept.items()}


def _ended_early(scenario: Scenario, lines: list[dict[str, Any]]) -> str | None:
    """Say why a run has fewer rounds than its scenario, None where it has them all."""
    if len(lines) == scenario.rounds:
        return None
    stop, last = scenario.stop_below_loss, lines[-1]
    if stop is not None and "loss" in last and last["loss"] < stop:
        return f"the loss is under {stop:g}"
    gone = last[OTHERS]["gone"] if OTHERS in last else len(last["withdrawn"])
    return f"{counted(gone, 'silo')} withdrew, and fewer than {least_silos(scenario)} could go on"


def _encryption(scenario: Scenario, whole: list[dict[str, Any]]) -> dict[str, Any]:
    """Say how updates were hidden: the figures that held in every round."""
    encryption = scenario.encryption
    row: dict[str, Any] = {"secure_aggregation": encryption.secure_aggregation, "threshold": None, "bits": 32}
    if encryption.secure_aggregation == "off":
        return row
    policy = scenario_policy(scenario)
    row |= {"bits": policy.ring_bits, "bound": policy.bound}
    if encryption.secure_aggregation == "on":
        row |= {
            "threshold": min(line["threshold"] for line in whole),
            "least_silos_in_a_sum": min(line["summed"] for line in whole),
            "least_effective_silos_in_a_sum": min(worth for _, worth in sums_worth(scenario, whole)),
            "colluding_tolerated": policy.colluding,
            "suite": policy.suite.name.lower().replace("_", "-"),
            "consistency": policy.consistency,
        }
    return row


def sums_worth(scenario: Scenario, whole: list[dict[str, Any]]) -> list[tuple[int, float]]:
    """Return of each sum that was opened its round, and as how many equal silos its survivors' weights count."""
    weigh = scenario.federation.weight
    return [
        (
            line["round"],
            line[OTHERS]["worth"]
            if OTHERS in line
            else effective_silos(weigh(silo) for silo in line["cohort"] if silo not in line["dropouts"]),
        )
        for line in whole
    ]


def rows_from_ledgers(scenario: Scenario, ledgers: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Return a row a silo: its ledger verified, and replayed into what the newest run of the scenario spent.

    What other runs spent is in the ledgers, and in a report's scope; it is not in these rows.

    Args:
        scenario: Whose silos.
        ledgers: By silo, where its ledger lies; a silo that never opened one has spent nothing.
    """
    found = {
        silo: inspection.verify(inspection.LedgerFiles.of(path), [], None)
        for silo, path in ledgers.items()
        if path.exists()
    }
    run = newest_run(scenario, {silo: (one.standing, one.entries) for silo, one in found.items()})
    return [
        row_from_ledger(
            scenario.plan(silo), found[silo].standing if silo in found else Standing(), run, goes_on=scenario.goes_on
        )
        for silo in scenario.federation.silos
    ]


def row_from_ledger(plan: SiloPlan, standing: Standing, run: str | None, *, goes_on: bool = False) -> dict[str, Any]:
    """Return what one run spent of a silo's budget, by its ledger; with what it began from, if that was a run."""
    own = None if run is None else standing.runs.get(run)
    scopes = [scope for scope in standing.scopes.values() if scope.data == plan.data]
    scope = standing.scopes[own.scope] if own is not None else next(iter(scopes), None)
    delta, budget = (plan.delta, None) if scope is None else (scope.delta, scope.epsilon)
    claimed, drawn, cap = ([], [0], math.inf) if own is None else (own.claimed, own.drawn, standing.cap_of(own))
    row = {**_row_of(plan, delta, claimed, drawn, cap), "budget": budget, "source": "ledger"}
    told = claim_in(standing, None if scope is None else scope.name, own, delta, goes_on=goes_on)
    if told["epsilon"] != row["epsilon"]:  # of two runs: what is read off one plan's curve says nothing of both
        row |= {**told, "mu": None, "advantage": None}
    return labelled(row)


def rows_reported(scenario: Scenario, run_dir: Path) -> list[dict[str, Any]]:
    """Return a row a silo, from what it reported to the server; its ledger has the last word.

    A silo reports what it charges for a round, and in how many. Its plan is then the scenario's: one whose budget paid
    for a part of that reserved less, and spent no more than is told here.

    Raises:
        LedgerError: When a silo reported more than its plan has.
    """
    path = run_dir / CHARGES
    reported = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    released = {silo for line in read_metrics(run_dir / BESIDES) for silo in line["charged"]}
    rows = []
    for silo in scenario.federation.silos:
        plan, phases = scenario.plan(silo), scenario.phases
        said = reported.get(silo)  # a silo that did not join reported nothing
        rounds = entries.figures_of(said["rounds"], len(phases)) if said else ()
        parts, taken = tuple[Event, ...](), list[int]()
        if said and any(rounds):
            event = event_from_json(said["event"])
            charged = (plans.event_of_round(scenario, silo, event, phase.first) for phase in phases)
            taken = [times * one.steps for one, times in zip(charged, rounds, strict=True)]
            parts = plans.parts_beginning(scenario, silo, event)
        elif silo in released:  # it trained in no round, and answered another job
            parts, taken = plans.planned_parts(scenario, silo), [0 for _ in phases]
        rows.append({**row_reported(plan, parts, taken), "budget": None})
    return rows


def row_reported(plan: SiloPlan, parts: Sequence[Event], trained: Sequence[int]) -> dict[str, Any]:
    """Return the row of a silo by what it reported to have charged.

    Args:
        plan: Of the scenario.
        parts: All that the run has of the silo; nothing where it reported nothing. What it releases besides training
            counts as released, whether or not it was by then.
        trained: Steps of each phase of training that it reported.
    """
    drawn = [*trained, *(one.steps for one in parts[len(trained) :])]
    return {**row_of(plan, plan.delta, parts, drawn if parts else [0]), "source": "reported"}


def row_of(plan: SiloPlan, delta: float, claimed: Sequence[Event], drawn: Sequence[int]) -> dict[str, Any]:
    """Return what a run cost; figures are None for a silo that released nothing, or of which nothing is bounded.

    `protects` is False where noise was seeded, an experiment's or left out; of an experiment's, no figure is told but
    under a name that says so (`labelled`). Where several parts were reserved, `epsilon` is of all of them composed,
    steps are training's, in whatever phase, the other figures are the first part's, and `parts` has a row for each.

    Args:
        plan: Of the scenario.
        delta: Of the claim.
        claimed: All parts that were reserved; nothing where nothing was charged.
        drawn: Steps that were charged of each part, of training first.

    Raises:
        LedgerError: When more steps were charged than reserved: of such a run nothing is claimed.
    """
    return labelled(_row_of(plan, delta, claimed, drawn, math.inf))


def _row_of(plan: SiloPlan, delta: float, claimed: Sequence[Event], drawn: Sequence[int], cap: float) -> dict[str, Any]:
    """Return a row whose figures are those of noise that nobody can subtract, whatever it was; a cap may bound it."""
    reserved, phases = claimed[0] if claimed else None, phases_in(claimed)
    taken, steps = sum(drawn[: max(1, phases)]), sum(part.steps for part in claimed[:phases])
    if any(had > part.steps for part, had in zip(claimed, drawn, strict=False)) or taken > steps:
        raise LedgerError(f"silo {plan.silo}: {taken} steps were charged, more than its plan has; nothing is claimed")
    # The coarse grid's are upper bounds too, and hardly higher.
    figures = inspection.figures(claimed, delta, accounting.COARSE_GRID)
    return {
        "silo": plan.silo,
        "unit": plan.unit,
        "max_records": plan.max_records,
        "protects": plan.baseline is None and (reserved is None or is_secret(reserved.noise_source)),
        **claim_of(claimed, drawn, delta, cap),
        "delta": delta,
        "accountant": accounting.ACCOUNTANT,
        "target_epsilon": plan.target_epsilon,
        "mu": figures["mu"],
        "mu_floor": figures["mu_floor"],
        "advantage": figures["advantage"],
        "mechanism": None if reserved is None else reserved.mechanism,
        "noise_multiplier": None if reserved is None else reserved.noise_multiplier,
        "max_grad_norm": None if reserved is None else reserved.max_grad_norm,
        "sample_rate": None if reserved is None else reserved.sample_rate,
        "noise_source": None if reserved is None else reserved.noise_source,
        "steps": taken,
        "steps_reserved": steps,
        **({"parts": [_row_of_part(*part) for part in zip(claimed, drawn, strict=True)]} if len(claimed) > 1 else {}),
    }


def _row_of_part(event: Event, taken: int) -> dict[str, Any]:
    """Return one part of what a run reserved: its own figures, of which epsilon is none, since parts compose."""
    return {
        "mechanism": event.mechanism,
        "noise_multiplier": event.noise_multiplier,
        "max_grad_norm": event.max_grad_norm,
        "sample_rate": event.sample_rate,
        "noise_source": event.noise_source,
        "steps": taken,
        "steps_reserved": event.steps,
    }
