"""What docs/architecture.md says of adding a kind is so: its files are added to a copy of the packages, and run.

The files and the scenario are the page's own. What is named here is what a run of them is asked for.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fedmodel.config import read_scenario
from fedmodel.errors import ConfigError
from fedmodel.ledger import read_ledger
from fedmodel.privacy import accounting
from fedmodel.privacy.mechanisms import event_from_json
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent
from fedmodel.system.packages import PACKAGES
from scenarios.cli.verbs import verbs
from scenarios.report.verifier.verify import verify
from scenarios.simulation.engines import engine_of
from scenarios.simulation.simulate import check_scenario

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
SNIPPET = re.compile(r"^```\w+\n# (\S+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# Not of the page: records of two arrays, an image and which of its pixels count, and a model that is given both.
SEVERAL = {
    "fedmodel/kinds/sources/masked_strokes.py": """
from typing import Literal

import numpy as np

from fedmodel.kinds.shape import ArrayShape, DataShape
from fedmodel.kinds.source import Dealt

SIZE = (4, 4)


class MaskedStrokesConfig(Dealt):
    source: Literal["masked-strokes"]

    @property
    def shape(self) -> DataShape:
        return DataShape((), 2, inputs={"image": ArrayShape(SIZE), "mask": ArrayShape(SIZE, 2)})

    @property
    def described(self) -> str:
        return "made-up strokes, some of whose pixels do not count"

    def load(self, seed):
        rng = np.random.default_rng(seed)
        label_N = rng.integers(0, 2, 160)
        image_N = rng.normal(size=(160, *SIZE)) + (2 * label_N - 1)[:, None, None]
        mask_N = rng.integers(0, 2, (160, *SIZE))
        image_N[mask_N == 0] = -9.0 * (2 * label_N - 1).repeat(16).reshape(160, *SIZE)[mask_N == 0]
        return {"image": image_N.astype(np.float32), "mask": mask_N}, label_N
""",
    "fedmodel/kinds/models/masked_mean.py": """
'''A linear model over the pixels that count.'''

import math
from typing import Literal

from fedmodel.kinds.model import Model
from fedmodel.kinds.shape import DataShape


class MaskedMeanConfig(Model):
    kind: Literal["masked-mean"]

    def build(self, shape: DataShape):
        from torch import nn

        class MaskedMean(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.last = nn.Linear(math.prod(shape.inputs["image"].size), shape.outputs)

            def forward(self, image, mask):
                return self.last((image * mask.to(image.dtype)).flatten(1))

        return MaskedMean()
""",
    "masked.toml": """
name = "masked"
summary = "records of two arrays, trained on, charged and reported"
rounds = 3
seed = 4
data = { source = "masked-strokes", held_out = 0.25, partition = { min_records = 40 } }
federation = { silos = ["north", "south"] }
model = { kind = "masked-mean" }
training = { loss = "cross-entropy", optimizer = "sgd", learning_rate = 0.5, local_steps = 2 }
besides = { label-counts = { noise_multiplier = 2.0, bound = 100.0 } }

[privacy]
unit = "record"
max_grad_norm = 1.0
noise_multiplier = 1.0
delta = 1e-3
sample_rate = 0.5
expected_batch_size = 30
""",
}
SCRIPT = """
import json, sys
from scenarios.cli import main

for status, *command in json.loads(sys.argv[1]):
    sys.argv = ["fedmodel", *command]
    try:
        main.main()
    except SystemExit as ended:
        if (ended.code or 0) != status:
            sys.exit(f"{command} ended with {ended.code}")
"""


def added() -> dict[str, str]:
    """Return the files that the page adds, by their paths."""
    text = PAGE.read_text(encoding="utf-8")
    return dict(SNIPPET.findall(text[text.index("\n## How to add") :]))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a folder with a copy of the packages, and nothing added yet but the scenario."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_each_thing_is_one_new_file_and_nothing_else() -> None:
    """Every heading of the section shows one file, which is not there yet."""
    text = PAGE.read_text(encoding="utf-8")
    section = text[text.index("\n## How to add") :]
    shown = re.split(r"^### .*$", section, flags=re.MULTILINE)[1:]
    assert [len(SNIPPET.findall(part)) for part in shown] == [1] * len(shown)
    for path in added():
        assert not (ROOT / path).exists(), path
        assert (ROOT / path).parent.is_dir(), path


@pytest.mark.processes
def test_what_the_page_adds_trains_is_charged_and_is_reported(copy: Path) -> None:
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    for path, text in {**added(), **SEVERAL}.items():
        (copy / path).write_text(text, encoding="utf-8")
    commands = [
        [0, "simulate", "half-moons.toml", "--engine", "polite", "--out", "run", "--json"],
        [6, "report", "verify", "run", "--json"],  # everything follows; that nobody vouches for the folder is no fault
        [0, "losses", "run", "--json"],
        [0, "ledger", "export", "run/ledgers/north.sqlite"],
        [0, "simulate", "masked.toml", "--out", "masked", "--json"],
        [6, "report", "verify", "masked", "--json"],
    ]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(commands)],
        cwd=copy,
        env=os.environ | {"PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert {path: path.read_bytes() for path in before} == before
    summary, verified, losses, *entries, masked, followed = [json.loads(line) for line in done.stdout.splitlines()]
    report = json.loads((copy / "run" / "report.json").read_text(encoding="utf-8"))
    assert (summary["parameters"], summary["rounds_completed"]) == (2 * 3 + 3 + 3 + 1, 2)
    assert [(entry["scope"], entry["round"]) for entry in entries if entry["kind"] == "charge"] == [
        ("moons/record", 1),
        ("moons/record", 2),
        ("moons/record", 3),
    ]
    assert [entry["body"]["event"]["mechanism"] for entry in entries if entry["kind"] == "charge"] == [
        "two-draws",
        "two-draws",
        "gaussian",
    ]
    # 240 records are dealt; the noise of two silos' answers has a deviation of some 2.8.
    assert summary["besides"]["head-count"]["records"] == pytest.approx(240, abs=30)
    assert summary["engine"] == "polite"
    assert summary["metrics"].keys() == {"share-right", "loss"}
    assert 0.0 <= summary["metrics"]["share-right"] <= 1.0
    assert {row["mechanism"] for row in summary["privacy"]} == {"two-draws"}
    (event,) = {json.dumps(entry["body"]["event"]) for entry in entries if entry["kind"] == "reserve"}
    ((counted,),) = [entry["body"]["besides"] for entry in entries if entry["kind"] == "reserve"]
    figures = {**json.loads(event), "mechanism": "dp-sgd"}
    one_draw = DpSgdEvent(**{**figures, "noise_multiplier": math.sqrt(0.5) * figures["noise_multiplier"]})
    released = [one_draw, event_from_json(json.dumps(counted))]
    assert json.loads(event)["mechanism"] == "two-draws"
    for row in summary["privacy"]:
        assert row["epsilon"] == pytest.approx(accounting.epsilon(released, 1e-3), rel=1e-6)
    assert verified["valid"]
    (data,) = report["report"]["scope"]["data_sets"]
    assert data["kind"] == "300 made-up points on two half circles, dealt out to silos"
    assert "The noise is two draws, and one of them is charged." in json.dumps(report["report"])
    assert [
        (one["what"], one["name"], one["says"], one["settings"]) for one in report["report"]["training"]["used"]
    ] == [
        ("model", "low-rank", "A linear model whose weights are a product of two narrow matrices.", "rank = 3"),
        ("gradients", "rows-of-one", "One record in each physical batch: the least memory, and the most time.", ""),
        ("strategy", "heavy-ball", "Federated averaging with momentum at the server.", ""),
    ]
    assert losses.keys() == {"1", "2"}
    _check_several(copy, masked, followed)


def _check_several(copy: Path, summary: dict[str, Any], verified: dict[str, Any]) -> None:
    """Records of two arrays were trained on, both read; charged, counted and reported as those of one array are.

    The pixels that do not count tell the other class, so that a model that is not given the mask learns that.
    """
    report = json.loads((copy / "masked" / "report.json").read_text(encoding="utf-8"))["report"]
    assert summary["parameters"] == 4 * 4 + 1
    assert summary["metrics"]["accuracy"] > 0.8
    assert sum(summary["besides"]["label-counts"]["counts"].values()) == pytest.approx(120, abs=30)
    assert [(row["steps"], row["steps_reserved"]) for row in summary["privacy"]] == [(6, 6)] * 2
    for silo in ("north", "south"):
        (run,) = read_ledger(copy / "masked" / "ledgers" / f"{silo}.sqlite").runs.values()
        assert [(one.round, one.part, one.steps) for one in run.charges.values()] == [
            (1, 0, 2), (2, 0, 2), (3, 0, 2), (4, 1, 1),
        ]  # fmt: skip
    assert verified["valid"]
    verify(copy / "masked")  # the verifier that is apart
    (data,) = report["scope"]["data_sets"]
    assert data["kind"] == "made-up strokes, some of whose pixels do not count"


def test_none_of_it_is_known_before(tmp_path: Path) -> None:
    """A name is refused with the nearest known one or all of them, before anything is spent; one after another."""
    scenario = tmp_path / "half-moons.toml"
    scenario.write_text(added()["half-moons.toml"], encoding="utf-8")
    instead: list[str] = []
    for refused, known in (
        ("unknown source 'moons'", ["data.source=synthetic"]),
        ("unknown kind of partition 'like-cards'", ["data.partition.kind="]),
        ("unknown model 'low-rank'", ["model.kind=mlp", "model.rank="]),
        ("unknown mechanism 'two-draws'", ["privacy.mechanism="]),
        ("unknown strategy 'heavy-ball'", ["federation.strategy="]),
        ("unknown job 'head-count'", ["besides="]),
        ("unknown loss 'hinge'", ["training.loss=cross-entropy"]),
        ("unknown kind of gradients 'rows-of-one'", ["training.gradients="]),
    ):
        with pytest.raises(ConfigError, match=refused):
            check_scenario(read_scenario(str(scenario), instead))
        instead += known
    check_scenario(read_scenario(str(scenario), instead))
    with pytest.raises(ConfigError, match="unknown engine 'polite'"):
        engine_of("polite")
    assert "losses" not in {verb.name for verb in verbs()}
