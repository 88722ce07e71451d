"""What privacy costs, and what federation costs, on real data of several fields, beside published figures.

    python benchmarks/utility.py [--field heart] [--seeds 5] [--json]

Each field is a built-in scenario. Its rows are of one model: trained over the silos at each epsilon and without
privacy; trained centrally, on all silos' records together, by plain Opacus at the same epsilon; and the answer that is
the majority's. A seed is a split into training and held-out records, a partition and a first model; noise is the
operating system's, and Opacus's own. What was chosen for a field (rates, rounds, clip) was chosen on other seeds, from
101 on, and is not charged for: over data that are private it would cost a budget too.

Silos train in one process without masks, which changes no figure but by rounding. Opacus adds the noise that this
project's accountant asks for at that epsilon, over as many steps.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

import numpy as np
import torch
from numpy.typing import NDArray
from opacus import PrivacyEngine
from sklearn import metrics
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fedmodel as fm
from fedmodel import plans
from fedmodel.config import Scenario, read_scenario
from fedmodel.data.own import own_dealt, settled
from fedmodel.data.records import Records, dealt
from fedmodel.kinds.shape import SURVIVAL
from fedmodel.kinds.sources.metabric import times
from fedmodel.kinds.sources.own import OwnConfig
from fedmodel.kinds.sources.uci_heart import HOSPITAL, UciHeartConfig
from fedmodel.learning.models import build_model
from fedmodel.learning.tasks import Measured, objective, task_of
from fedmodel.learning.tasks._survival_figures import concordance

Scores = dict[str, float]
_FIRST_SEED: Final = 11


@dataclass(frozen=True)
class Level:
    """One epsilon of a field, and what was chosen for it.

    Attributes:
        settings: Overrides of the scenario; `privacy.epsilon` is among them unless the baseline is.
        central: Learning rate, steps and clip of the central run.
        published: The figure of others, with its source.
    """

    settings: tuple[str, ...]
    central: tuple[float, int, float]
    published: str = ""


@dataclass(frozen=True)
class Field:
    """One field.

    Attributes:
        levels: By what they are called.
        score: Figures of scores of the positive class, or of all classes, on the held-out records.
        ways: Settings that replace others' data or scaling, by what they are called.
    """

    scenario: str
    levels: dict[str, Level]
    score: Callable[[Scenario, Records, NDArray[Any]], Scores]
    ways: dict[str, tuple[str, ...]]


def outputs(module: nn.Module, x_NF: NDArray[Any]) -> NDArray[Any]:
    """Return what a model returns for records, `(N, K)`."""
    with torch.no_grad():
        found: NDArray[Any] = module(torch.from_numpy(np.ascontiguousarray(x_NF))).numpy()
    return found


def federated(field: Field, settings: list[str]) -> Scores:
    """Return a run's figures on its held-out records."""
    with TemporaryDirectory() as folder:
        run = fm.simulate(field.scenario, settings, engine="vectorised", out=Path(folder) / "run", progress=False)
        scenario = read_scenario(str(run.folder / "scenario.toml"))
        held_out, _ = _records(scenario)
        return field.score(scenario, held_out, outputs(run.model, held_out.x_NF))


def central(field: Field, level: Level, settings: list[str]) -> Scores:
    """Return the figures of the same model, trained on all silos' records together by plain Opacus, in full lots."""
    scenario = settled(read_scenario(field.scenario, settings))
    held_out, silos = _records(scenario)
    train = Records.joined(silos)
    rate, steps, clip = level.central
    losses = objective(scenario.data.shape, scenario.training.loss).losses
    module = build_model(scenario.model, scenario.data.shape, seed=scenario.seed or 0)
    optimizer: torch.optim.Optimizer = torch.optim.SGD(module.parameters(), lr=rate)
    data = TensorDataset(torch.from_numpy(train.x_NF), torch.from_numpy(train.y_N))
    lots: Any = DataLoader(data, batch_size=len(train), shuffle=True)
    if scenario.privacy.baseline is None:
        noise = plans.noise_multiplier(scenario.plan(scenario.federation.silos[0]))
        module, optimizer, lots = PrivacyEngine().make_private(
            module=module, optimizer=optimizer, data_loader=lots, noise_multiplier=noise, max_grad_norm=clip
        )
    for _ in range(steps):
        for x_BF, y_B in lots:
            optimizer.zero_grad()
            losses(module(x_BF), y_B).mean().backward()
            optimizer.step()
    return field.score(scenario, held_out, outputs(module, held_out.x_NF))


def majority(field: Field, settings: list[str]) -> Scores:
    """Return the figures of the best answer that is one for all, by the training records."""
    scenario = read_scenario(field.scenario, settings)
    held_out, silos = dealt(scenario)
    target_N, classes = Records.joined(silos).y_N, scenario.data.shape.classes
    if scenario.data.shape.task == SURVIVAL:
        interval_N, seen_N = target_N // 2, target_N % 2
        events_K = np.bincount(interval_N[seen_N == 1], minlength=classes)
        without_K = np.array([(interval_N > interval).sum() for interval in range(classes)])
        one_K = np.log(events_K / without_K)
    else:
        logits_K = np.log(np.bincount(target_N, minlength=classes) / len(target_N))
        one_K = logits_K if classes > 2 else logits_K[1:] - logits_K[:1]
    return field.score(scenario, held_out, np.tile(one_K, (len(held_out), 1)))


def cox(settings: list[str]) -> Scores:
    """Return the concordance of Cox's model without privacy, fitted centrally by Newton's method (Breslow's ties)."""
    held_out, silos = dealt(read_scenario("survival", settings))
    train = Records.joined(silos)
    months_N, seen_N = times()
    order_N = np.argsort(-months_N[train.person_N], kind="stable")
    x_NF, events_N = train.x_NF[order_N].astype(np.float64), seen_N[train.person_N][order_N] == 1
    weight_F = np.zeros(x_NF.shape[1])
    for _ in range(20):
        risk_N = np.exp(x_NF @ weight_F)
        total_N = np.cumsum(risk_N)[:, None]  # of who is still looked at, since times fall
        mean_NF = np.cumsum(risk_N[:, None] * x_NF, axis=0) / total_N
        square_NFF = np.cumsum(risk_N[:, None, None] * x_NF[:, :, None] * x_NF[:, None], axis=0) / total_N[..., None]
        slope_F = (x_NF - mean_NF)[events_N].sum(axis=0)
        curvature_FF = (square_NFF - mean_NF[:, :, None] * mean_NF[:, None])[events_N].sum(axis=0)
        weight_F += np.linalg.solve(curvature_FF, slope_F)
    who_N = held_out.person_N
    found = concordance(months_N[who_N], seen_N[who_N], held_out.x_NF @ weight_F)
    return {"concordance": found or math.nan, "integrated Brier": math.nan}


def of_patients(scenario: Scenario, held_out: Records, output_NK: NDArray[Any]) -> Scores:
    """Return Harrell's C by months, and the integrated Brier score by intervals."""
    months_N, seen_N = times()
    who_N = held_out.person_N
    task = task_of(scenario.data.shape)
    curve_NK = task.answers("hazards", torch.from_numpy(output_NK)).numpy()
    found = Measured(curve_NK, held_out.y_N, np.zeros(len(who_N)), 0.0, "hazards")
    return {
        "concordance": concordance(months_N[who_N], seen_N[who_N], -curve_NK.sum(axis=1)) or math.nan,
        "integrated Brier": task.figures(("integrated-brier",), found)["integrated-brier"],
    }


def _records(scenario: Scenario) -> tuple[Records, tuple[Records, ...]]:
    """Return the held-out records, and every silo's."""
    return own_dealt(scenario) if isinstance(scenario.data, OwnConfig) else dealt(scenario)


def of_hospitals(scenario: Scenario, held_out: Records, output_NK: NDArray[Any]) -> Scores:
    """Return the accuracy over all patients, and FLamby's: the mean of the four hospitals' accuracies."""
    right_N = (output_NK[:, 0] > 0) == (held_out.y_N == 1)
    first, source = _heart(scenario.seed or 0)
    hospital_N = source.groups(HOSPITAL, 0)
    assert hospital_N is not None
    # Records of a user's own are counted from 0; they are in the order of the split that they were scaled from.
    hospital_N = hospital_N[dealt(first)[0].person_N]
    each = [right_N[hospital_N == name].mean() for name in scenario.federation.silos]
    return {"accuracy": float(right_N.mean()), "mean of hospitals": float(np.mean(each))}


def _heart(seed: int) -> tuple[Scenario, UciHeartConfig]:
    scenario = read_scenario("heart", [f"seed={seed}"])
    assert isinstance(scenario.data, UciHeartConfig)
    return scenario, scenario.data


def by_hospital(seed: int) -> dict[str, Any]:
    """Return the patients as FLamby scales them: by each hospital's own training means and deviations, which leak."""
    scenario, source = _heart(seed)
    held_out, silos = dealt(scenario)
    raw_NF, y_N = source.load(seed)
    hospital_N = source.groups(HOSPITAL, seed)
    assert hospital_N is not None
    x_NF = np.empty_like(raw_NF)
    for name, records in zip(scenario.federation.silos, silos, strict=True):
        own_NF = raw_NF[records.person_N]
        where_N = hospital_N == name
        x_NF[where_N] = (raw_NF[where_N] - own_NF.mean(axis=0)) / (own_NF.std(axis=0, ddof=1) + 1e-9)
    x_NF = np.clip(x_NF, -10, 10)
    return {
        "train": [(x_NF[records.person_N], y_N[records.person_N]) for records in silos],
        "test": (x_NF[held_out.person_N], y_N[held_out.person_N]),
    }


def of_loans(_: Scenario, held_out: Records, output_NK: NDArray[Any]) -> Scores:
    """Return figures of a score: of the ranking, of the tenth that is looked at, of the cost, and of calibration.

    The cost is that of the set's own documentation: five for a bad loan that is granted, one for a good one that is
    refused, a loan; whoever is likelier than one in six to default is refused.
    """
    bad_N, chance_N = held_out.y_N == 1, 1 / (1 + np.exp(-output_NK[:, 0].astype(np.float64)))
    worst_N = np.argsort(-chance_N, kind="stable")[: len(bad_N) // 10]
    refused_N = chance_N > 1 / 6
    return {
        "average precision": float(metrics.average_precision_score(bad_N, chance_N)),
        "bad of the worst tenth": float(bad_N[worst_N].mean()),
        "AUROC": float(metrics.roc_auc_score(bad_N, chance_N)),
        "cost": float(5 * (bad_N & ~refused_N).mean() + (~bad_N & refused_N).mean()),
        "Brier": float(metrics.brier_score_loss(bad_N, chance_N)),
    }


_LOANS_PUBLISHED: Final = ".70 is the cost of refusing everybody"
FIELDS: Final = {
    "heart": Field(
        "heart",
        {
            "epsilon 1": Level(
                ("privacy.epsilon=1.0",), (0.3, 20, 2.0), ".685 (FLamby, whose epsilon is 1.3 to 3.7)"
            ),
            "epsilon 0.1": Level(
                ("privacy.epsilon=0.1", "rounds=5", "privacy.max_grad_norm=1.0"),
                (0.3, 5, 1.0),
                ".606 (FLamby)",
            ),
            "no privacy": Level(
                ('privacy.baseline="no-noise-no-clip"', "rounds=40", "training.learning_rate=2.0"),
                (2.0, 40, 0.0),
                ".7125 (FLamby)",
            ),
        },
        of_hospitals,
        {
            "public ranges": (),
            "a scaling for each hospital": ('data={use="utility:by_hospital", seed=SEED, name="uci-heart-scaled"}',),
        },
    ),
    "credit": Field(
        "credit",
        {
            **{
                f"epsilon {epsilon}": Level((f"privacy.epsilon={epsilon}",), (0.3, 20, 2.0), _LOANS_PUBLISHED)
                for epsilon in (0.3, 1.0, 3.0, 10.0)
            },
            "no privacy": Level(
                ('privacy.baseline="no-noise-no-clip"', "training.learning_rate=1.2"), (1.2, 20, 0.0), _LOANS_PUBLISHED
            ),
        },
        of_loans,
        {"declared directions": (), "none declared": ("model.rising=[]", "model.falling=[]")},
    ),
    "survival": Field(
        "survival",
        {
            "epsilon 1": Level(("privacy.epsilon=1.0", "training.learning_rate=2.0"), (2.0, 30, 2.0)),
            "epsilon 3": Level(("privacy.epsilon=3.0",), (4.0, 30, 2.0)),
            "no privacy": Level(
                ('privacy.baseline="no-noise-no-clip"', "training.learning_rate=6.0"),
                (6.0, 30, 0.0),
                ".631 for Cox's model, .643 for DeepSurv (Katzman et al. 2018)",
            ),
        },
        of_patients,
        {"public ranges": ()},
    ),
}  # fmt: skip


def measured(name: str, seeds: int) -> list[dict[str, Any]]:
    """Return every row of a field: its figures for each seed, and the CPU seconds of all."""
    field, rows = FIELDS[name], []
    for way, level_name in ((way, level) for way in field.ways for level in field.levels):
        level = field.levels[level_name]
        for who in ("federated", "central Opacus"):
            started, runs = time.process_time(), []
            for seed in range(_FIRST_SEED, _FIRST_SEED + seeds):
                own = [one.replace("SEED", str(seed)) for one in field.ways[way]]
                settings = [*level.settings, *own, f"seed={seed}", "encryption={}"]
                runs.append(federated(field, settings) if who == "federated" else central(field, level, settings))
            spent = (time.process_time() - started) / seeds
            rows.append({"row": f"{who}, {way}", "level": level_name, "runs": runs, "cpu_seconds": spent})
    alone = [majority(field, [f"seed={seed}"]) for seed in range(_FIRST_SEED, _FIRST_SEED + seeds)]
    rows.append({"row": "one answer for all", "level": "", "runs": alone, "cpu_seconds": 0.0})
    if name == "survival":
        runs = [cox([f"seed={seed}"]) for seed in range(_FIRST_SEED, _FIRST_SEED + seeds)]
        rows.append({"row": "central, Cox's model", "level": "no privacy", "runs": runs, "cpu_seconds": 0.0})
    return rows


def cell(runs: list[Scores], figure: str) -> str:
    """Return the mean, and one standard deviation where there are several seeds.

    >>> cell([{"accuracy": 0.8}, {"accuracy": 0.9}], "accuracy")
    '0.850 ± 0.071'
    """
    values = [run[figure] for run in runs]
    if any(map(math.isnan, values)):
        return "-"
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{math.fsum(values) / len(values):.3f}{spread}"


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--field", choices=list(FIELDS), nargs="*", default=list(FIELDS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    found = {name: measured(name, arguments.seeds) for name in arguments.field}
    if arguments.json:
        print(json.dumps(found))
        return
    for name, rows in found.items():
        figures = list(rows[0]["runs"][0])
        print(f"\n| {name} | | {' | '.join(figures)} | published | CPU s |\n|---|---|{'---|' * (len(figures) + 2)}")
        for row in rows:
            level = FIELDS[name].levels.get(row["level"])
            cells = [cell(row["runs"], figure) for figure in figures]
            said = [row["row"], row["level"], *cells, level.published if level else "", f"{row['cpu_seconds']:.1f}"]
            print(f"| {' | '.join(said)} |", flush=True)


if __name__ == "__main__":
    main()
