"""One simulated run: check everything, make the run's folder, run an engine, and sum up from what it left on disk.

Nothing is written before every check has passed. The summary is derived from the folder (metrics, ledgers), the same
way for both engines; each silo's epsilon is replayed from its own ledger, not from what it told the server.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from fedmodel import accounting
from fedmodel.config import Scenario, SiloPlan, scenario_to_toml
from fedmodel.errors import ConfigError, DataError, LedgerError, ProtocolError
from fedmodel.mechanisms import DpSgdEvent
from fedmodel.packages import code_hash
from fedmodel.provision import provision, scenario_policy
from scenarios import officer

Engine = Literal["in-process", "flower"]

# Four bytes each stay under the 2 GB that a message of Flower's protocol buffers can hold.
_MOST_PARAMETERS: Final = 500_000_000
Device = Literal["auto", "cpu", "cuda"]


def placed(scenario: Scenario) -> Scenario:
    """Return a scenario whose folder of tables, if it has one, is said from the root: engines work in other folders."""
    if scenario.data.folder is None:
        return scenario
    data = scenario.data.model_copy(update={"folder": str(Path(scenario.data.folder).absolute())})
    return scenario.model_copy(update={"data": data})


def check_scenario(scenario: Scenario, *, deployed: bool = False) -> int:
    """Refuse a scenario that could not run, before anything is written.

    Args:
        scenario: The one to check.
        deployed: Whether silos have tables of their own, so that nobody here knows, or may know, how many records
            one holds; what is on board is dealt out in a deployment too, and is checked the same way.

    Returns:
        The number of the model's trainable parameters.

    Raises:
        ConfigError: When the model does not fit the data, delta is too large for a silo, or secure aggregation
            could hide nothing.
        DataError: When a silo holds fewer records than an expected lot, or data cannot be loaded and dealt.
    """
    import torch

    from fedmodel.data import data_shape, silo_records
    from fedmodel.models import build_model
    from fedmodel.vectors import parameter_count

    with torch.device("meta"):  # shapes without memory: the model may be far too large for this machine
        parameters = parameter_count(build_model(scenario.model, data_shape(scenario.data), seed=0))
    if parameters > _MOST_PARAMETERS:
        raise ConfigError(
            f"the model would have {parameters:,} parameters, more than the {_MOST_PARAMETERS:,} that fit into one"
            " message; use fewer or narrower layers"
        )
    if scenario.encryption.secure_aggregation != "off":
        scenario_policy(scenario)
    for silo in scenario.federation.silos:
        plan = scenario.plan(silo)
        if not (deployed and scenario.data.source == "table"):
            _check_size(plan, len(silo_records(scenario, silo)))
        if plan.noise_multiplier is not None and not math.isfinite(_planned_epsilon(plan)):
            raise ConfigError(
                f"privacy.noise_multiplier = {plan.noise_multiplier:g} over {plan.steps} steps is too little for silo"
                f" {silo!r}: no epsilon is computed for it; raise it, or take fewer steps"
            )
    return parameters


def _check_size(plan: SiloPlan, records: int) -> None:
    """Refuse a silo, whose records are all this user's, that holds too few for a lot or too many for delta."""
    if records < plan.expected_batch_size:
        raise DataError(
            f"silo {plan.silo!r} holds fewer records than a lot: privacy.expected_batch_size ="
            f" {plan.expected_batch_size}; declare a smaller lot, or set data.partition.min_records to deal more"
        )
    if plan.delta * records >= 1:
        raise ConfigError(
            f"privacy.delta = {plan.delta:g} is not under one over the records of silo {plan.silo!r}, so it would allow"
            " publishing a record outright; choose a smaller delta"
        )


def _planned_epsilon(plan: SiloPlan) -> float:
    """Return an upper bound on what the whole plan of a declared noise multiplier would spend."""
    noise = accounting.noise_multiplier(plan)
    event = DpSgdEvent(noise, plan.max_grad_norm, plan.sample_rate, plan.steps, 1, max_records=plan.max_records)
    return accounting.epsilon([event], plan.delta, accounting.COARSE_GRID)


def resolve_device(device: Device) -> str:
    """Return "cpu" or "cuda".

    Raises:
        ConfigError: When CUDA is asked for and absent.
    """
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: no CUDA device is available here; use --device cpu or auto")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


@contextmanager
def run_folder(scenario: Scenario, out: Path | None) -> Iterator[Path]:
    """Make the run's folder and write the scenario as resolved into it.

    Raises:
        ConfigError: When the folder cannot be made, or holds something already.
    """
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    folder = Path("runs") / f"{scenario.name}-{stamp}-{os.getpid()}" if out is None else out
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"--out {folder}: is not an empty folder; a run never writes over another")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "scenario.toml").write_text(scenario_to_toml(scenario), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--out {folder}: cannot be written: {error.strerror}") from error
    yield folder.resolve()


def simulate(
    scenario: Scenario,
    parameters: int,
    engine: Engine,
    device: str,
    run_dir: Path,
    watching: AbstractContextManager[object],
) -> dict[str, Any]:
    """Run a checked scenario in its folder, and return the summary that was written to it.

    Args:
        scenario: Checked by `check_scenario`.
        parameters: What that returned.
        engine: What carries messages between server and silos.
        device: "cpu" or "cuda".
        run_dir: Made by `run_folder`.
        watching: Open while the engine runs, such as a progress bar over the folder's `metrics.jsonl`.

    Raises:
        FedmodelError: When the run fails; what was written until then stays.
    """
    started = time.monotonic()
    provision(scenario, run_dir)
    run_config: dict[str, bool | float | int | str] = {
        "scenario": scenario.model_dump_json(exclude_none=True),
        "run-dir": str(run_dir),
        "device": device,
    }
    nodes = len(scenario.federation.silos)
    with watching:
        if engine == "flower":
            from scenarios.flower_runtime import run_under_flower

            run_under_flower(nodes, run_config, run_dir)
        else:
            from clients.client_app import app as client_app
            from scenarios.engine import run_in_process
            from server.server_app import app as server_app

            run_in_process(server_app, client_app, nodes, run_config)
    summary = {
        "scenario": scenario.name,
        "engine": engine,
        "device": device,
        "parameters": parameters,
        **_outcome(scenario, run_dir, time.monotonic() - started),
        "code_hash": code_hash(),
        "seed": scenario.seed,
    }
    beside = run_dir / "summary.json.partial"
    beside.write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    beside.replace(run_dir / "summary.json")
    return summary


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a `metrics.jsonl`, none where the file does not exist yet."""
    if not path.exists():
        return []
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    return [json.loads(line) for line in whole.splitlines() if line]


def _outcome(scenario: Scenario, run_dir: Path, seconds: float) -> dict[str, Any]:
    """Sum up what a run left in its folder."""
    lines = read_metrics(run_dir / "metrics.jsonl")
    whole = [line for line in lines if "failed" not in line]
    if not whole:
        raise ProtocolError(f"the run left no whole round behind; see {run_dir}")
    figures = ("accuracy", "recall", "precision", "f1", "auroc", "loss")
    dropouts = Counter((silo, code) for line in lines for silo, code in line["dropouts"].items())
    withdrawn = lines[-1]["withdrawn"]
    return {
        "rounds_completed": len(whole),
        "rounds_failed": len(lines) - len(whole),
        "clients": len(scenario.federation.silos),
        "metrics": {key: whole[-1][key] for key in figures if key in whole[-1]},
        "privacy": [_privacy_row(run_dir, scenario.plan(silo)) for silo in scenario.federation.silos],
        "encryption": _encryption(scenario, whole),
        "dropouts": [
            {"silo": silo, "code": code, "rounds": rounds} for (silo, code), rounds in sorted(dropouts.items())
        ],
        "withdrawn": [{"silo": silo, **left} for silo, left in sorted(withdrawn.items())],
        "ended_early": _ended_early(scenario, lines),
        "timing": {
            "seconds_total": round(seconds, 3),
            "seconds_per_round": round(sum(line["seconds"] for line in lines) / len(lines), 4),
        },
    }


def _ended_early(scenario: Scenario, lines: list[dict[str, Any]]) -> str | None:
    """Say why a run has fewer rounds than its scenario, None where it has them all."""
    if len(lines) == scenario.rounds:
        return None
    stop, last = scenario.stop_below_loss, lines[-1]
    if stop is not None and "loss" in last and last["loss"] < stop:
        return f"the loss is under {stop:g}"
    return f"{len(last['withdrawn'])} silos withdrew, and fewer than {scenario.federation.min_silos} could go on"


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
            "colluding_tolerated": policy.colluding,
            "suite": policy.suite.name.lower().replace("_", "-"),
            "consistency": policy.consistency,
        }
    return row


def _privacy_row(run_dir: Path, plan: SiloPlan) -> dict[str, Any]:
    """Verify a silo's ledger and replay it into what was spent; figures are None for a silo that released nothing."""
    path = run_dir / "ledgers" / f"{plan.silo}.sqlite"
    delta, events, budget = plan.delta, list[DpSgdEvent](), None
    if path.exists():  # a silo that never opened a ledger has spent nothing
        standing = officer.verify(officer.Place.of(path), [], None).standing
        for scope in standing.scopes.values():
            delta, events, budget = scope.delta, standing.events(scope.name), scope.epsilon
    shared = {(e.noise_multiplier, e.max_grad_norm, e.sample_rate, e.noise_source) for e in events}
    if len(shared) > 1:
        raise LedgerError(f"{path}: a run's charges differ in more than their steps")
    noise_multiplier, max_grad_norm, sample_rate, noise_source = shared.pop() if shared else (None,) * 4
    # The coarse grid's are upper bounds too, and hardly higher.
    figures = officer.figures(events, delta, accounting.COARSE_GRID)
    return {
        "silo": plan.silo,
        "unit": plan.unit,
        "max_records": plan.max_records,
        "epsilon": accounting.epsilon(events, delta),
        "delta": delta,
        "accountant": accounting.ACCOUNTANT,
        "budget": budget,
        "target_epsilon": plan.epsilon,
        "mu": figures["mu"],
        "mu_floor": figures["mu_floor"],
        "advantage": figures["advantage"],
        "noise_multiplier": noise_multiplier,
        "max_grad_norm": max_grad_norm,
        "sample_rate": sample_rate,
        "noise_source": noise_source,
        "steps": sum(event.steps for event in events),
    }
