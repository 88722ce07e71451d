"""Bytes of a round and accuracy by width of the ring and by part of an update; and of a final model made smaller.

    python benchmarks/compression.py [--seeds 11 12 13 14 15] [--row ROW ...] [--json]

Handwritten digits on board, four silos and a network of one hidden layer, 4,810 parameters, under simulated secure
aggregation: the words of the real protocol, without masks, which change neither a word nor its width. Bytes are those
of the update's array in a silo's answer as it was sent; the rest of an answer, some hundreds of bytes and a message of
masks, is the same for all rows. Partition and start are the same for all rows of a seed; noise is the operating
system's. Each seed's whole model is then exported in each form.

The learning rate of a share, or of a rank, is that of whole updates times the share, or times the rank over the 64
columns of both matrices. None was chosen on these seeds.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

import torch

from clients import client_app
from fedmodel.config import CsvForm, read_scenario
from fedmodel.wire.messages import the_array
from scenarios.models.export import export
from scenarios.models.smaller import Smaller
from scenarios.simulation.simulate import check_scenario, run_folder, simulate

SEEDS = (11, 12, 13, 14, 15)
RATE = 2.0
_SCENARIO = [
    'federation.silos=["a","b","c","d"]', "federation.min_silos=4", "rounds=20",
    'model={kind="mlp", hidden=[64], activation="tanh"}', "data.partition.min_records=200",
    "data.partition.label_concentration=100.0", "data.partition.size_concentration=1000.0",
    "training.momentum=0.0", "training.keep_optimizer_state=false", "training.local_steps=1",
    "privacy.expected_batch_size=300", "privacy.sample_rate=1.0", "privacy.epsilon=8.0",
    "encryption.secure_aggregation=simulated", "encryption.bound=0.25", "encryption.colluding=0",
]  # fmt: skip
ROWS: dict[str, list[str]] = {
    **{f"{bits} bits": [f"encryption.ring_bits={bits}"] for bits in (32, 24, 16, 12, 8)},
    **{
        f"32 bits, share {share}": [f"federation.update_share={share}", f"training.learning_rate={RATE * share}"]
        for share in (0.5, 0.25, 0.1)
    },
    **{
        f"32 bits, rank {rank}": [f"federation.update_rank={rank}", f"training.learning_rate={RATE * rank / 64}"]
        for rank in (32, 16)
    },
    "12 bits, share 0.5": [
        "encryption.ring_bits=12", "federation.update_share=0.5", f"training.learning_rate={RATE * 0.5}",
    ],
}  # fmt: skip
FORMS: dict[str, Smaller] = {
    **{f"{share:.0%} of weights zero": Smaller(prune=share) for share in (0.5, 0.8, 0.9)},
    **{f"{share:.0%} of units out": Smaller(prune_units=share) for share in (0.25, 0.5)},
    "int8": Smaller(quantise="int8"),
    "25% of units out, half of weights zero, int8": Smaller(0.5, 0.25, "int8"),
}


@contextmanager
def _counting() -> Iterator[list[int]]:
    """Note how many bytes the array of each update has that leaves a silo."""
    found: list[int] = []
    check = client_app.wire.check_leaves

    def looked(question: Any, answer: Any, sent_of: Any) -> None:
        check(question, answer, sent_of)
        if question.metadata.message_type == client_app.wire.TRAIN:
            found.append(len(the_array(answer).data))

    client_app.wire.check_leaves = looked
    try:
        yield found
    finally:
        client_app.wire.check_leaves = check


def run(settings: list[str], seed: int, *, exported: bool) -> dict[str, Any]:
    """Return a run's accuracy and the bytes of an update; and of its model, made smaller in each form, what it cost."""
    scenario = read_scenario("digits", [*_SCENARIO, f"training.learning_rate={RATE}", *settings, f"seed={seed}"])
    with TemporaryDirectory() as folder, _counting() as sent, run_folder(scenario, Path(folder) / "run") as run_dir:
        summary = simulate(scenario, check_scenario(scenario), "in-process", "cpu", run_dir, nullcontext())
        (size,) = set(sent)
        row: dict[str, Any] = {"accuracy": summary["metrics"]["accuracy"], "bytes": size}
        if exported:
            row["forms"] = {name: _cost(run_dir, Path(folder) / name, form) for name, form in FORMS.items()}
    return row


def _cost(run_dir: Path, to: Path, form: Smaller) -> dict[str, Any]:
    """Return what a form of a run's model cost, as ONNX."""
    done = export(run_dir, "onnx", to, None, None, CsvForm(), smaller=form)
    assert done.cost is not None
    return done.cost.as_row()


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--row", choices=ROWS, nargs="+", default=[*ROWS], metavar="ROW")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    found = []
    for name in asked.row:
        runs = [run(ROWS[name], seed, exported=name == "32 bits") for seed in asked.seeds]
        found.append({"row": name, "runs": runs})
        if not asked.json:
            print(
                f"{name}: {runs[0]['bytes']:,} bytes, accuracy {_told([one['accuracy'] for one in runs])}", flush=True
            )
            _print_forms(runs)
    if asked.json:
        print(json.dumps(found))


def _told(figures: list[float]) -> str:
    spread = statistics.stdev(figures) if len(figures) > 1 else 0.0
    return f"{statistics.mean(figures):.3f} +- {spread:.3f} ({' '.join(f'{one:.3f}' for one in figures)})"


def _print_forms(runs: list[dict[str, Any]]) -> None:
    for name, form in runs[0].get("forms", {}).items():
        accuracy = _told([one["forms"][name]["after"]["accuracy"] for one in runs])
        sizes = " to ".join(f"{size:,}" for size in form["bytes"])
        zipped = " to ".join(f"{size:,}" for size in form["bytes_zipped"])
        print(f"  {name}: {sizes} bytes, {zipped} under gzip, accuracy {accuracy}", flush=True)


if __name__ == "__main__":
    main()
