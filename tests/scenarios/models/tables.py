"""Made-up tables, and a scenario that is run on them, for tests of what is done with its model."""

from __future__ import annotations

import csv
import random
from pathlib import Path

HEADER = ["age", "visits", "smoker", "stage", "outcome"]
SCENARIO = """
name = "tabled"
summary = "three silos, a table each, a linear model"
rounds = 4
seed = 5

[federation]
silos = ["north", "south", "west"]
min_silos = 2

[model]
kind = "mlp"

[training]
loss = "cross-entropy"
optimizer = "sgd"
learning_rate = 2.0
local_steps = 4

[privacy]
unit = "record"
max_grad_norm = 1.0
delta = 1e-3
noise_multiplier = 1.0
sample_rate = 0.5
expected_batch_size = 30

[data]
source = "table"
name = "admissions"
folder = "FOLDER"
label = "outcome"
labels = ["benign", "malignant"]

[[data.columns]]
name = "age"
type = "float"
range = [0.0, 100.0]
limits = [0.0, 120.0]

[[data.columns]]
name = "visits"
type = "integer"
range = [0.0, 10.0]

[[data.columns]]
name = "smoker"
type = "boolean"

[[data.columns]]
name = "stage"
type = "category"
categories = ["I", "II", "III"]
"""


def rows(count: int, seed: int) -> list[list[str]]:
    """Made-up patients, whose outcome hangs on age and stage."""
    draw = random.Random(seed)  # noqa: S311 - made-up records
    made = []
    for _ in range(count):
        age, stage = draw.randint(20, 90), draw.choice(["I", "II", "III"])
        ill = age + 20 * len(stage) + draw.randint(-15, 15) > 95
        visits, smoker = str(draw.randint(0, 10)), draw.choice(["true", "0"])
        made.append([str(age), visits, smoker, stage, "malignant" if ill else "benign"])
    return made


def write_table(path: Path, made: list[list[str]], header: list[str] | None = None) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([HEADER if header is None else header, *made])
    return path
