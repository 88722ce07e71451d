"""A draft as text: a commented scenario, the owner's part of `silo.toml`, and made-up tables to try both on.

Guarantee: a scenario's text is a function of the names of the columns and of what the owner said. No value of the file,
no gap and no count gets into it, nor what a column seems to hold: numbers are floats whatever the file has, and a
record is dropped for a missing value whether there is one or not.

The made-up tables are drawn from what is declared and from a seed. No record of the file is in them.
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TypeGuard

import numpy as np

from fedmodel.config import TableSource
from scenarios.drafts.asking import Answers, Times

_FULL_LOTS = 5_000  # records up to which each step takes all of them: no noise of sampling, and still quick


def scenario_text(name: str, answers: Answers, folder: Path, seed: int) -> str:
    """Return a commented scenario."""
    low, high = answers.records
    rate = float(f"{min(1.0, _FULL_LOTS / low):.3g}")
    lots = (
        "every record is in every step"
        if rate == 1.0
        else "each record is in a step with this probability, so that steps stay quick"
    )
    unit = (
        'unit = "record"      # a record is one person\'s only one'
        if answers.person is None
        else f'unit = "person"\nmax_records = {answers.max_records}      # of one person; the rest of hers is not used'
    )
    person = "" if answers.person is None else f"person = {_said(answers.person)}      # whose a record is\n"
    return f"""# A draft, made by `fedmodel new`. It is public: the server and every silo read it, and each silo's law
# names it by its hash. Nothing in it may be computed from records, ranges above all: take a laboratory's or a
# textbook's. docs/scenarios.md says what each key means.

name = {_said(name)}
summary = "one line about what is learnt, for whom"
rounds = 30          # at most; the noise is calibrated for all of them
seed = {seed}

[federation]
silos = {_said(answers.silos)}
min_silos = 3        # fewer in a sum, and the round fails

[encryption]
secure_aggregation = "on"    # the server opens sums, and no silo's update
bound = 4.0          # clips a coordinate of an update
colluding = 1        # one silo may work with the server

[model]
kind = "mlp"
hidden = []          # linear: at a small epsilon, noise grows with the number of parameters
init = "zero"

[training]
loss = "{_loss(answers)}"
optimizer = "sgd"
learning_rate = 1.0
local_steps = 1

[privacy]
{unit}
epsilon = {answers.epsilon!r}        # each silo calibrates its own noise to this, over all rounds
delta = 1e-{len(str(high))}         # under one over {high}, the most records of a silo by public knowledge
max_grad_norm = 1.0
sample_rate = {rate!r}    # {lots}
expected_batch_size = {max(1, int(rate * low))}   # the public divisor of sums: a silo has {low} records at least

[data]
source = "table"
name = {_said(name)}
label = {_said(answers.label)}
{_labels(answers)}
{person}other_columns = "ignore"     # columns that are not declared below are not looked at
folder = {_said(str(folder))}      # a simulation's: SILO.csv and held-out.csv, made-up ones

# A record with a missing value is left out (missing = "drop"). A column that is often missing had better be filled in
# by a public constant: missing = "fill", fill = 75.0. limits = [low, high] refuse what cannot be at all.
{"".join(_column(column, declared) for column, declared in answers.columns.items())}"""


def _loss(answers: Answers) -> str:
    """Return the loss that what is learnt has."""
    if answers.times is not None:
        return "hazards"
    return "mse" if _is_range(answers.labels) else "cross-entropy"


def _is_range(declared: tuple[float, float] | tuple[str, ...]) -> TypeGuard[tuple[float, float]]:
    """Return whether a column is of numbers."""
    return bool(declared) and not isinstance(declared[0], str)


def _labels(answers: Answers) -> str:
    """Return what is said of the label."""
    if answers.times is not None:
        lines = [
            "# The label says whether the event ended the time: true or false, 1 or 0, or what silo.toml has as yes",
            "# and no. Of other codes: labels = [CODE OF NO EVENT, CODE OF ONE].",
        ]
        if answers.labels:
            lines = [f"labels = {_said(answers.labels)}      # in order: no event was seen, and the event"]
        return "\n".join([
            *lines,
            f"time = {_said(answers.times.column)}      # for how long each was looked at, from 0 on",
            f"ends = {list(answers.times.ends)!r}      # public; an event at an end is of the interval after it",
            f"time_unit = {_said(answers.times.unit)}",
        ])  # fmt: skip
    if _is_range(answers.labels):
        low, high = answers.labels
        return f"label_range = [{low!r}, {high!r}]     # public; a number outside is learnt as its end"
    return f"labels = {_said(answers.labels)}      # in order; the second of two is the positive one"


def _column(name: str, declared: tuple[float, float] | tuple[str, ...] | None) -> str:
    """Return one declared column."""
    if declared is None:
        kind = 'type = "boolean"\n'
    elif isinstance(declared[0], str):
        kind = (
            f'type = "category"\ncategories = {_said(declared)}\nunknown = "drop"     # a code that is none of them\n'
        )
    else:
        kind = f'type = "float"\nrange = [{declared[0]!r}, {declared[1]!r}]     # public, mapped onto [-1, 1]\n'
    return f'\n[[data.columns]]\nname = {_said(name)}\n{kind}missing = "drop"\n'


def table_text(name: str, source: TableSource, person: str | None) -> str:
    """Return the owner's part of `silo.toml`."""
    keys = {key: value for key in ("csv", "parquet") if (value := getattr(source, key)) is not None}
    plain = type(source)(csv="x")
    form = ("separator", "decimal", "encoding", "missing_values", "yes", "no")
    keys |= {key: value for key in form if (value := getattr(source, key)) != getattr(plain, key)}
    lines = [f"{key} = {_said(value)}" for key, value in keys.items()]
    if person is not None:
        lines.append(f'person = {{column = {_said(person)}, form = "text"}}  # or "caseless", "digits": docs/silo.md')
    return "\n".join([
        "# For silo.toml of the silo whose table this is, and for nobody else: where the table lies, and how it is",
        "# written. Separator, decimal, encoding and words are a guess from the file's looks: look at them.",
        f"[tables.{name}]", *lines, "",
    ])  # fmt: skip


def _said(value: object) -> str:
    """Return text, or a list of texts, as TOML."""
    return json.dumps(value, ensure_ascii=False)


def made_up(answers: Answers, seed: int) -> str:
    """Return a CSV of made-up records that a model can learn from, drawn from what is declared."""
    draw = np.random.default_rng(seed)
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    person = [] if answers.person is None else [answers.person]
    times = answers.times
    time = [] if times is None else [times.column]
    lines.writerow([*person, *answers.columns, answers.label, *time])
    for row in range(answers.records[0]):
        lean, *label = _labelled(answers.labels, draw) if times is None else _timed(times, answers.labels, draw)
        values = [_value(declared, lean, draw) for declared in answers.columns.values()]
        lines.writerow([*[f"made-up-{row}"] * len(person), *values, *label])
    return text.getvalue()


def _timed(
    times: Times, labels: tuple[float, float] | tuple[str, ...], draw: np.random.Generator
) -> tuple[float, str, str]:
    """Return where a record's time stands between longest, -1, and shortest, 1; whether it was the event; the time."""
    lean = float(draw.uniform(-1, 1))
    share = float(np.clip(0.5 - 0.4 * lean + 0.1 * draw.standard_normal(), 0, 1))
    word = (labels or ("false", "true"))[int(draw.random() < 0.7)]
    return lean, str(word), f"{1.2 * times.ends[-1] * share:.6g}"


def _labelled(declared: tuple[float, float] | tuple[str, ...], draw: np.random.Generator) -> tuple[float, str]:
    """Return a label, and where it stands between the first, -1, and the last, 1."""
    if _is_range(declared):
        low, high = declared
        lean = float(draw.uniform(-1, 1))
        return lean, f"{low + (lean + 1) / 2 * (high - low):.6g}"
    place = int(draw.integers(len(declared)))
    return 2 * place / (len(declared) - 1) - 1, str(declared[place])


def _value(declared: tuple[float, float] | tuple[str, ...] | None, lean: float, draw: np.random.Generator) -> str:
    """Return a value that leans with the class."""
    at = float(np.clip(0.5 + 0.25 * lean + 0.2 * draw.standard_normal(), 0, 1))
    if declared is None:
        return "true" if at > 0.5 else "false"
    if isinstance(declared[0], str):
        return str(declared[min(int(at * len(declared)), len(declared) - 1)])
    low, high = declared
    return f"{float(low) + at * (float(high) - float(low)):.6g}"
