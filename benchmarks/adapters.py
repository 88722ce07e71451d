"""Fine-tuning a real base on real e-mail by adapters, under privacy and without, in ten silos and centrally.

    python benchmarks/adapters.py --folder FOLDER [--seeds 5] [--row ROW]... [--out FILE]
    python benchmarks/adapters.py --table FILE

FOLDER is what `mail.py` wrote. Each row of the table is a way of training, each figure is of the held-out messages,
none of whose senders trains. What is done is appended to FILE, and is not done again.

Partition, lots and noise differ between seeds. All rows but those of full lots take 24 steps, with clip 1 and delta
1e-4. In a step of adapters in silos each message is in the lot with probability .2; of adapters centrally with
probability .04, so that a lot of all messages is twice as large as one of a silo; of heads with probability .04. Rates
were chosen once, at epsilon 8, on a seed that is in no row: .1 in silos and .03 centrally, since noise of one silo
alone is larger than that of all messages together. The central rows are loops of torch and of Opacus over the same
module, written here, in float32; the federated ones are this project's, in bf16. Adapters are of rank 8, on query and
value of the last of the base's six layers, so that gradients pass back through one layer and fewer parameters are
noised; one row has them on all layers.

A head alone is trained on what the frozen base makes of each message, which is computed once: a linear layer on the
mean of its hidden states, as `adapt = "head"` with `task = "feature-extraction"` has it. It costs so little that it is
trained with full lots too, and for senders: rows "of a sender" claim for all that one sender wrote, and train on the
first so many messages of each.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

import numpy as np
import pyarrow as pa
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from fedmodel import plans
from fedmodel.config import Scenario, read_scenario
from fedmodel.data import Records, held_out_records, silo_records
from fedmodel.kinds import own_code
from fedmodel.learning.inputs import tensors
from fedmodel.learning.models import build_model
from scenarios.simulation.simulate import check_scenario, placed, run_folder, simulate

EPSILONS: Final = (1.0, 3.0, 8.0)
_SCENARIO: Final = Path(__file__).with_name("mail.toml")
_FIRST_SEED: Final = 11
_PHYSICAL: Final = 64
_NO_PRIVACY: Final = "privacy.baseline=no-noise-no-clip"
_FEW: Final = ["privacy.sample_rate=0.04", "privacy.expected_batch_size=20", "training.learning_rate=0.03"]
_HEAD: Final = [
    "model={kind='mlp', hidden=[]}", "training.precision=float32", "training.max_physical_batch=512", *_FEW,
]  # fmt: skip
_ALL_LAYERS: Final = ["model.targets=['query', 'value']"]
_FULL_LOTS: Final = ["privacy.sample_rate=1.0", "privacy.expected_batch_size=500", "training.local_steps=20"]
_OF_SENDERS: Final = ["privacy.unit=person", "privacy.sample_rate=1.0", "training.local_steps=20"]
_KEEPS: Final = ("accuracy", "auroc")

Row = Callable[[Path, int], Mapping[str, float]]
"""From the folder of data and base, and a seed, to the figures of the held-out messages."""


def scenario_of(folder: Path, settings: Iterable[str], seed: int) -> Scenario:
    """Return the scenario with its folders and a row's settings."""
    placing = [f"model.use=hf:{folder / 'base'}", f"data.folder={folder / 'mail'}"]
    return placed(read_scenario(str(_SCENARIO), [*placing, *settings, f"seed={seed}"]))


def run(scenario: Scenario) -> dict[str, float]:
    """Return the figures of one run of this project."""
    parameters = check_scenario(scenario)
    with TemporaryDirectory() as name, run_folder(scenario, Path(name) / "run") as run_dir:
        summary = simulate(scenario, parameters, "in-process", "cpu", run_dir, nullcontext())
    return {key: summary["metrics"][key] for key in _KEEPS} | {"parameters": parameters}


def federated(settings: list[str], folder: Path, seed: int) -> dict[str, float]:
    """Return the figures of adapters trained in ten silos."""
    return run(scenario_of(folder, settings, seed))


def head_alone(settings: list[str], folder: Path, seed: int) -> dict[str, float]:
    """Return the figures of a head that is trained in ten silos on what the base makes of messages."""
    own_code.hand_over("adapters:features", features)
    data = f"data={{use='adapters:features', folder='{folder}', features=[384], classes=2, partition={{kind='iid'}}}}"
    return run(placed(read_scenario(str(_SCENARIO), [data, *_HEAD, *settings, f"seed={seed}"])))


def head_of_senders(most: int, lot: int, epsilon: float, folder: Path, seed: int) -> dict[str, float]:
    """Return the figures of a head that is trained in ten silos, of which a claim is for a sender's messages together.

    Args:
        most: How many messages of a sender are trained on, at most.
        lot: The divisor of a sum: every silo has more messages than that.
        epsilon: Of a sender.
        folder: Of data and base.
        seed: Of partition, lots and noise.
    """
    own_code.hand_over("adapters:features_by_sender", features_by_sender)
    data = (
        f"data={{use='adapters:features_by_sender', folder='{folder}', label='label', person='sender', features=[384],"
        " classes=2, partition={kind='iid'}}"
    )
    said = [f"privacy.max_records={most}", f"privacy.expected_batch_size={lot}", f"privacy.epsilon={epsilon}"]
    return run(placed(read_scenario(str(_SCENARIO), [data, *_HEAD, *_OF_SENDERS, *said, f"seed={seed}"])))


def features(folder: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return what the base makes of messages, those that train and those that are held out: a scenario's data."""
    path = Path(folder) / "features.npz"
    if not path.exists():
        scenario = _in_two(folder)
        module = build_model(scenario.model, scenario.data.shape, seed=0)
        module.answer = nn.Identity()
        found = {}
        for name, records in (("train", _all(scenario)), ("test", held_out_records(scenario))):
            x_N, y_N = tensors(records, torch.device("cpu"))
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                parts = [module(**_some(x_N, at)) for at in torch.arange(len(y_N)).split(_PHYSICAL)]
            found |= {f"{name}_x": torch.cat(parts).float().numpy(), f"{name}_y": y_N.numpy()}
        np.savez(path, **found)
    with np.load(path) as kept:
        return {name: (kept[f"{name}_x"], kept[f"{name}_y"]) for name in ("train", "test")}


def features_by_sender(folder: str) -> dict[str, pa.Table]:
    """Return the same as tables, which say who sent a message: a scenario's data."""
    path, kept = Path(folder) / "senders.npy", features(folder)
    if not path.exists():
        np.save(path, _all(_in_two(folder)).person_N)
    senders = {"train": np.load(path), "test": np.arange(len(kept["test"][1]))}  # nobody asks who sent what is held out
    return {
        part: pa.table({**{str(place): x_NF[:, place] for place in range(x_NF.shape[1])}, "label": y_N,
                        "sender": [f"{part}-{one}" for one in senders[part]]})
        for part, (x_NF, y_N) in kept.items()
    }  # fmt: skip


def _in_two(folder: str) -> Scenario:
    """Return a scenario that deals all messages to two silos, the same each time."""
    settings = ["model.task=feature-extraction", "federation.silos=['a', 'b']", "federation.min_silos=2"]
    return scenario_of(Path(folder), settings, 1)


def _all(scenario: Scenario) -> Records:
    """Return the records of all silos."""
    parts = [silo_records(scenario, silo) for silo in scenario.federation.silos]
    x_N = {key: np.concatenate([one.x[key] for one in parts]) for key in parts[0].x}
    y_N, person_N = (np.concatenate([getattr(one, name) for one in parts]) for name in ("y_N", "person_N"))
    return Records(x_N, y_N, person_N)


def _some(x_N: Mapping[str, Tensor], index: Tensor) -> dict[str, Tensor]:
    return {name: one[index] for name, one in x_N.items()}


def majority(folder: Path, _seed: int) -> dict[str, float]:
    """Return how often the commoner label of what trains is right."""
    kept = features(str(folder))
    common = np.bincount(kept["train"][1]).argmax()
    return {"accuracy": float((kept["test"][1] == common).mean()), "auroc": 0.5, "parameters": 0}


def central(settings: list[str], epsilon: float | None, folder: Path, seed: int) -> dict[str, float]:
    """Return the figures of one party with all messages: by torch alone, or by Opacus at an epsilon."""
    scenario = scenario_of(folder, [*settings, *([] if epsilon is None else [f"privacy.epsilon={epsilon}"])], seed)
    torch.manual_seed(seed)
    module = build_model(scenario.model, scenario.data.shape, seed=seed)
    x_N, y_N = tensors(_all(scenario), torch.device("cpu"))
    plan, silos = scenario.plan("c0"), len(scenario.federation.silos)
    expected = plan.expected_batch_size * silos
    step = _plain_step(module, scenario, expected) if epsilon is None else _opacus_step(module, scenario, expected)
    for _ in range(plan.steps):
        step(x_N, y_N, torch.nonzero(torch.rand(len(y_N)) < plan.sample_rate)[:, 0])
    return _figures(module, held_out_records(scenario)) | {
        "parameters": sum(one.numel() for one in module.parameters() if one.requires_grad)
    }


Step = Callable[[Mapping[str, Tensor], Tensor, Tensor], None]


def _plain_step(module: nn.Module, scenario: Scenario, expected: int) -> Step:
    """Return a step of Adam on the sum of a lot's gradients over the expected lot."""
    optimizer = torch.optim.Adam(_trained(module), lr=scenario.training.learning_rate)

    def step(x_N: Mapping[str, Tensor], y_N: Tensor, lot: Tensor) -> None:
        optimizer.zero_grad()
        for at in lot.split(_PHYSICAL):
            (_loss(module, x_N, y_N, at) / expected).backward()
        optimizer.step()

    return step


def _opacus_step(module: nn.Module, scenario: Scenario, expected: int) -> Step:
    """Return Opacus's step with the noise that a silo's plan has."""
    from opacus.grad_sample import GradSampleModule
    from opacus.optimizers import DPOptimizer

    plan = scenario.plan("c0")
    per_record = GradSampleModule(module.train(), loss_reduction="sum", strict=False)
    optimizer = DPOptimizer(
        torch.optim.Adam(_trained(module), lr=scenario.training.learning_rate),
        noise_multiplier=plans.noise_multiplier(plan), max_grad_norm=plan.max_grad_norm, expected_batch_size=expected,
    )  # fmt: skip

    def step(x_N: Mapping[str, Tensor], y_N: Tensor, lot: Tensor) -> None:
        parts = lot.split(16)  # whose gradients of each record are in memory at once
        for number, at in enumerate(parts, start=1):
            optimizer.zero_grad()
            _loss(per_record, x_N, y_N, at).backward()
            optimizer.signal_skip_step(do_skip=number < len(parts))
            optimizer.step()
        optimizer.zero_grad()

    return step


def _loss(module: nn.Module, x_N: Mapping[str, Tensor], y_N: Tensor, at: Tensor) -> Tensor:
    """Return the sum of some messages' cross-entropy: of two classes, by the one output that a model here has."""
    output_BK = module(**_some(x_N, at))
    return nn.functional.binary_cross_entropy_with_logits(output_BK[:, 0], y_N[at].float(), reduction="sum")


def _trained(module: nn.Module) -> list[nn.Parameter]:
    return [one for one in module.parameters() if one.requires_grad]


def _figures(module: nn.Module, records: Records) -> dict[str, float]:
    """Return the figures of the held-out messages."""
    x_N, y_N = tensors(records, torch.device("cpu"))
    with torch.no_grad():
        parts = [module.eval()(**_some(x_N, at))[:, 0] for at in torch.arange(len(y_N)).split(_PHYSICAL)]
    score_N = torch.cat(parts).numpy()
    right = float(((score_N > 0) == y_N.numpy()).mean())
    return {"accuracy": right, "auroc": float(roc_auc_score(y_N.numpy(), score_N))}


def rows() -> dict[str, Row]:
    """Return all rows, in the order of the table."""
    found: dict[str, Row] = {
        "majority": majority,
        "head alone, ten silos, no privacy": partial(head_alone, [_NO_PRIVACY]),
        "adapters of all layers, central, no privacy": partial(central, [*_FEW, *_ALL_LAYERS], None),
        "adapters, central, no privacy": partial(central, _FEW, None),
        "adapters, ten silos, no privacy": partial(federated, [_NO_PRIVACY]),
    }
    for epsilon in EPSILONS:
        said = f"privacy.epsilon={epsilon}"
        found |= {
            f"head alone, ten silos, epsilon {epsilon:g}": partial(head_alone, [said]),
            f"head alone, full lots, ten silos, epsilon {epsilon:g}": partial(head_alone, [said, *_FULL_LOTS]),
            f"adapters, ten silos, epsilon {epsilon:g}": partial(federated, [said]),
            f"adapters, central by Opacus, epsilon {epsilon:g}": partial(central, _FEW, epsilon),
            f"head alone, full lots, ten silos, epsilon {epsilon:g} of a sender": partial(
                head_of_senders, 1, 200, epsilon
            ),
        }
    found["head alone, full lots, ten silos, epsilon 8 of a sender, 4 messages"] = partial(head_of_senders, 4, 250, 8.0)
    return found


@lru_cache(maxsize=1)
def _told(path: Path, _size: int) -> tuple[dict[str, Any], ...]:
    return tuple(json.loads(line) for line in path.read_text().splitlines())


def done(path: Path) -> tuple[dict[str, Any], ...]:
    """Return what was measured already."""
    return _told(path, path.stat().st_size) if path.exists() else ()


def table(found: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the table, in Markdown: means, and one standard deviation where there are several seeds.

    >>> print(table([{"row": "majority", "accuracy": 0.7, "auroc": 0.5, "parameters": 0, "seconds": 0}])[-1])
    | majority | 0.700 | 0.500 | 1 | 0 | 0 |
    """
    kept = list(found)
    lines = ["| | accuracy | AUROC | seeds | trained parameters | CPU seconds a run |", "|---|---|---|---|---|---|"]
    for name in rows():
        own = [one for one in kept if one["row"] == name]
        if not own:
            continue
        cells = []
        for key in _KEEPS:
            spread = f" ± {statistics.stdev(one[key] for one in own):.3f}" if len(own) > 1 else ""
            cells.append(f"{statistics.mean(one[key] for one in own):.3f}{spread}")
        seconds = statistics.median(one["seconds"] for one in own)
        lines.append(f"| {name} | {' | '.join(cells)} | {len(own)} | {own[0]['parameters']:,} | {seconds:.0f} |")
    return lines


def main() -> None:
    """Measure what is not done yet, row by row of each seed, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--row", action="append", help="a part of its name")
    parser.add_argument("--out", type=Path, default=Path("adapters.jsonl"))
    parser.add_argument("--table", type=Path)
    asked = parser.parse_args()
    if asked.table is None:
        if asked.folder is None:
            parser.error("--folder is needed: what mail.py wrote")
        torch.set_num_threads(1)
        logging.disable(logging.WARNING)
        features(str(asked.folder.absolute()))  # once, so that it is in no row's time
        for seed in range(_FIRST_SEED, _FIRST_SEED + asked.seeds):
            for name, row in rows().items():
                there = {(one["row"], one["seed"]) for one in done(asked.out)}
                if (name, seed) in there or not any(part in name for part in asked.row or [""]):
                    continue
                began = time.process_time()
                figures = row(asked.folder.absolute(), seed)
                line = {"row": name, "seed": seed, **figures, "seconds": time.process_time() - began}
                with asked.out.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                print(json.dumps(line), flush=True)
    print("\n".join(table(done(asked.table or asked.out))))


if __name__ == "__main__":
    main()
