"""What privacy costs, and what federation costs, on real data of several fields, beside published figures.

    python benchmarks/utility.py [--field heart] [--seeds 5] [--rows central] [--json]

Each field is a built-in scenario. Its rows are of one model: trained over the silos at each epsilon and without
privacy; trained centrally, on all silos' records together, by plain Opacus at the same epsilon; the same with as much
noise as all silos add together, which tells whether noise alone is what federation costs; and the answer that is the
majority's. A seed is a split into training and held-out records, a partition and a first model; noise is the
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
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, cast

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

import numpy as np
import torch
from numpy.typing import NDArray
from opacus import PrivacyEngine
from opacus.optimizers import DPOptimizer
from opacus.utils.batch_memory_manager import BatchMemoryManager
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fedmodel as fm
from fedmodel import plans
from fedmodel.config import Scenario, read_scenario
from fedmodel.data import held_out_records, silo_records
from fedmodel.data.own import settled
from fedmodel.data.records import Records, dealt
from fedmodel.kinds.own_code import open_meanwhile
from fedmodel.kinds.shape import SURVIVAL
from fedmodel.kinds.sources.metabric import times
from fedmodel.kinds.sources.uci_heart import HOSPITAL, UciHeartConfig
from fedmodel.learning.models import build_model
from fedmodel.learning.tasks import Measured, objective, task_of
from fedmodel.learning.tasks._class_figures import cost_at
from fedmodel.learning.tasks._survival_figures import concordance

Scores = dict[str, float]
_FIRST_SEED: Final = 11
FEDERATED: Final = "federated"
CENTRAL: Final = "central Opacus"
CENTRAL_AS_NOISY: Final = "central Opacus with all silos' noise"
RATIOS: Final = (1, 2, 5, 10, 20)
"""How many false alarms a missed record costs, over the curve of costs."""
_SAID: Final = (0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 1.0)


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
        at_once: Records of a central lot whose gradients are held together; the lot is added up of such parts.
    """

    scenario: str
    levels: dict[str, Level]
    score: Callable[[Scenario, Records, NDArray[Any]], Scores]
    ways: dict[str, tuple[str, ...]]
    at_once: int = 10_000


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


def central(field: Field, level: Level, settings: list[str], times_the_noise: float = 1.0) -> Scores:
    """Return the figures of the same model, trained on all silos' records together by plain Opacus, in full lots.

    Args:
        field: Whose.
        level: Of which epsilon.
        settings: Overrides of the scenario.
        times_the_noise: How much of the noise that this epsilon asks for is added.
    """
    scenario = settled(read_scenario(field.scenario, settings))
    held_out, silos = _records(scenario)
    train = Records.joined(silos)
    rate, steps, clip = level.central
    losses = objective(scenario.data.shape, scenario.training.loss).losses
    module = build_model(scenario.model, scenario.data.shape, seed=scenario.seed or 0)
    momentum = scenario.training.momentum
    optimizer: torch.optim.Optimizer = torch.optim.SGD(module.parameters(), lr=rate, momentum=momentum)
    data = TensorDataset(torch.from_numpy(train.x_NF), torch.from_numpy(train.y_N))
    lots: Any = DataLoader(data, batch_size=len(train), shuffle=True)
    if scenario.privacy.baseline is None:
        noise = times_the_noise * plans.noise_multiplier(scenario.plan(scenario.federation.silos[0]))
        module, optimizer, lots = PrivacyEngine().make_private(
            module=module, optimizer=optimizer, data_loader=lots, noise_multiplier=noise, max_grad_norm=clip
        )
        in_parts: Any = BatchMemoryManager(
            data_loader=lots, max_physical_batch_size=field.at_once, optimizer=cast("DPOptimizer", optimizer)
        )
    else:
        in_parts = nullcontext(lots)
    with in_parts as parts:
        for _ in range(steps):
            for x_BF, y_B in parts:
                optimizer.zero_grad()
                losses(module(x_BF), y_B).mean().backward()
                optimizer.step()
    return field.score(scenario, held_out, outputs(module, held_out.x_NF))


def majority(field: Field, settings: list[str]) -> Scores:
    """Return the figures of the best answer that is one for all, by the training records."""
    scenario = read_scenario(field.scenario, settings)
    held_out, silos = _records(scenario)
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
    return held_out_records(scenario), tuple(silo_records(scenario, silo) for silo in scenario.federation.silos)


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


def of_pictures(_: Scenario, held_out: Records, output_NK: NDArray[Any]) -> Scores:
    """Return the accuracy, and the least of any class: the share of its pictures that are called so."""
    right_N = output_NK.argmax(axis=1) == held_out.y_N
    each = [right_N[held_out.y_N == label].mean() for label in np.unique(held_out.y_N)]
    return {"accuracy": float(right_N.mean()), "of the worst class": float(min(each))}


def of_loans(scenario: Scenario, held_out: Records, output_NK: NDArray[Any]) -> Scores:
    """Return figures of a score: of the ranking, of the tenth that is looked at, of what errors cost, of calibration.

    A figure's name is of a table where it has a colon. The set's own documentation says a ratio of costs of 5: a bad
    loan that is granted costs as much as five good ones that are refused.
    """
    task = task_of(scenario.data.shape)
    chance_NK = task.answers("cross-entropy", torch.from_numpy(output_NK)).numpy()
    found = Measured(chance_NK, held_out.y_N, np.zeros(len(held_out)), 0.0, "cross-entropy")
    told = task.figures(("average-precision", "recall@0.1", "auroc", "cost@5", "brier"), found)
    bad = int((held_out.y_N == 1).sum())
    return {
        "average precision": told["average-precision"],
        "recall of the worst tenth": told["recall@0.1"],
        "bad of the worst tenth": told["recall@0.1"] * bad / int(0.1 * len(held_out)),
        "AUROC": told["auroc"],
        "cost@5": told["cost@5"],
        "Brier": told["brier"],
        **{f"cost by ratio: {ratio}": cost_at(ratio, found) for ratio in RATIOS},
        **{f"cost at the best threshold: {ratio}": lowest_cost(ratio, found) for ratio in RATIOS},
        **{f"went bad, by what was said: {name}": share for name, share in calibration(found).items()},
    }


def lowest_cost(ratio: float, found: Measured) -> float:
    """Return the least normalised expected cost of any threshold, which is known only when it is too late to choose.

    Over all ratios it is the lower envelope of Drummond and Holte 2006, section 3: what a ranking is worth, without its
    calibration.

    >>> found = Measured(np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([0, 1]), np.zeros(2), 0.0, "cross-entropy")
    >>> lowest_cost(5, found), round(cost_at(5, found), 3)
    (0.0, 0.0)
    >>> lowest_cost(1, found), cost_at(1, found)
    (0.0, 0.5)
    """
    score_N, is_positive_N = found.answer_N[:, 1], found.target_N == 1
    called_TN = score_N > np.append(np.unique(score_N), -np.inf)[:, None]
    missed_T, alarms_T = (~called_TN & is_positive_N).sum(axis=1), (called_TN & ~is_positive_N).sum(axis=1)
    worst = ratio * is_positive_N.sum() + (~is_positive_N).sum()
    return float((ratio * missed_T + alarms_T).min() / worst)


def calibration(found: Measured) -> Scores:
    """Return the share of positive records among those of which each range of chances was said; NaN where of none."""
    said_N, is_positive_N, shares = found.answer_N[:, 1], found.target_N == 1, {}
    for low, high in pairwise(_SAID):
        within_N = (said_N >= low) & ((said_N < high) | (high == _SAID[-1]))
        shares[f"{low:g} to {high:g}"] = float(is_positive_N[within_N].mean()) if within_N.any() else math.nan
    return shares


_LOANS_PUBLISHED: Final = "none with privacy"
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
    "fashion": Field(
        "fashion",
        {
            "epsilon 3": Level(
                ("privacy.epsilon=3.0",), (2.1, 60, 1.0), ".897 central, .8809 without privacy (Tramer, Flower)"
            ),
            "no privacy": Level(
                ('privacy.baseline="no-noise-no-clip"', "training.learning_rate=0.02"), (0.06, 60, 0.0)
            ),
        },
        of_pictures,
        {"scattering features": ()},
        at_once=1_000,
    ),
}  # fmt: skip


def trained(who: str, field: Field, level: Level, settings: list[str]) -> Scores:
    """Return the figures of one run of a row."""
    if who == FEDERATED:
        return federated(field, settings)
    silos = len(read_scenario(field.scenario, settings).federation.silos)
    return central(field, level, settings, math.sqrt(silos) if who == CENTRAL_AS_NOISY else 1.0)


def measured(name: str, seeds: int, named: str = "") -> list[dict[str, Any]]:
    """Return every row of a field whose name has some words: its figures for each seed, and the CPU seconds of all."""
    field, rows = FIELDS[name], []
    for way, level_name in ((way, level) for way in field.ways for level in field.levels):
        level = field.levels[level_name]
        for who in (FEDERATED, CENTRAL, CENTRAL_AS_NOISY):
            if named not in f"{who}, {way}" or (who == CENTRAL_AS_NOISY and level_name == "no privacy"):
                continue
            started, runs = time.process_time(), []
            for seed in range(_FIRST_SEED, _FIRST_SEED + seeds):
                own = [one.replace("SEED", str(seed)) for one in field.ways[way]]
                settings = [*level.settings, *own, f"seed={seed}", "encryption={}"]
                runs.append(trained(who, field, level, settings))
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
    parser.add_argument("--rows", default="", help="rows whose name has these words alone")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    with open_meanwhile():  # the scaling of `by_hospital` is code of this file
        found = {name: measured(name, arguments.seeds, arguments.rows) for name in arguments.field}
    if arguments.json:
        print(json.dumps(found))
        return
    for name, rows in found.items():
        for table in dict.fromkeys(_table(figure) for figure in rows[0]["runs"][0]):
            show(name, table, rows)


def _table(figure: str) -> str:
    """Return which table a figure stands in.

    >>> _table("AUROC"), _table("cost by ratio: 5")
    ('', 'cost by ratio')
    """
    return figure.rpartition(": ")[0]


def show(name: str, table: str, rows: list[dict[str, Any]]) -> None:
    """Print one table of a field."""
    figures = [figure for figure in rows[0]["runs"][0] if _table(figure) == table]
    columns = [figure.rpartition(": ")[2] for figure in figures]
    title = f"{name}: {table}" if table else name
    print(f"\n| {title} | | {' | '.join(columns)} | published | CPU s |\n|---|---|{'---|' * (len(columns) + 2)}")
    for row in rows:
        level = FIELDS[name].levels.get(row["level"])
        cells = [cell(row["runs"], figure) for figure in figures]
        said = [row["row"], row["level"], *cells, level.published if level else "", f"{row['cpu_seconds']:.1f}"]
        print(f"| {' | '.join(said)} |", flush=True)


if __name__ == "__main__":
    main()
