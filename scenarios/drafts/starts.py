"""A draft without a table: after a few answers, a scenario of what is on board, of texts, or of its owner's own code.

The last has `data.py` and `model.py` beside it, which work as they are: their records are made up, in the form that
the owner's own will have. So are the texts of one on texts (`scenarios.drafts.texts`). Nothing is read off any record.
"""

from __future__ import annotations

import json
import secrets
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fedmodel.config import builtin_scenarios, scenario_from_json
from fedmodel.errors import ConfigError
from fedmodel.system.durable import failed, replace_file
from scenarios.drafts import texts
from scenarios.drafts.asking import Ask, one_of, read_choices, read_numbers, read_positive, read_silos
from scenarios.drafts.draft import SCENARIO
from scenarios.drafts.flower import PROJECT, project_text

TABLE: Final = "table"
OWN: Final = "own"
TEXTS: Final = "texts"
_RECORDS: Final = {"breast-cancer": 569, "digits": 1797}
"""What is on board, with how many records there are, a public number."""
DATA: Final = (*_RECORDS, TABLE, TEXTS, OWN)
TASKS: Final = ("classification", "regression")
_HELD_OUT: Final = 0.2
_FULL_LOTS: Final = 5_000  # records up to which each step takes all of them
_MODELS: Final = {
    "breast-cancer": 'kind = "mlp"\nhidden = []          # linear: noise grows with the number of parameters\n'
    'init = "zero"',
    "digits": 'kind = "cnn"\nchannels = [8, 16]\ngroups = 4           # of GroupNorm, one image at a time',
    OWN: 'use = "model:net"    # the function net in model.py, beside this file\n'
    "width = 16           # whatever arguments it takes",
}


@dataclass(frozen=True)
class Start:
    """What a draft without a table is made of; all of it is public.

    Attributes:
        data: One of `DATA`, but no table.
        task: What is learnt, one of `TASKS`.
        silos: Their names.
        records: Between which numbers each silo's records lie.
        epsilon: The target of each silo.
        on_base: Of texts: the base, and their classes.
    """

    data: str
    task: str
    silos: tuple[str, ...]
    records: tuple[int, int]
    epsilon: float
    on_base: texts.OnBase | None = None


def ask_for_data(ask: Ask) -> str | None:
    """Return what is to be learnt from, one of `DATA`; None where nobody says."""
    said = "a data set on board, a table of your own, or code of your own that loads records"
    return ask("--data", f"What is to be learnt from: {said}? ({', '.join(DATA)})", one_of(list(DATA)))


def gather_start(data: str, ask: Ask) -> Start | None:
    """Ask for the rest; None where some of it is missing.

    Raises:
        ConfigError: When the base of texts is none.
    """
    task: str | None = TASKS[0]
    folder = ask("--base", "Which folder has the base that was trained before?", Path) if data == TEXTS else None
    labels = ask("--labels", "Classes of a text, in order, separated by commas", read_choices) if data == TEXTS else ()
    if data == OWN:
        task = ask("--task", f"What is to be predicted? ({', '.join(TASKS)})", one_of(list(TASKS)))
    silos = ask("--silos", "Names of the silos, three at least, separated by commas", read_silos)
    records: tuple[int, int] | None = None
    if data in (OWN, TEXTS):
        records = ask(
            "--records", "Between which numbers do each silo's records lie, LOW:HIGH? Not the counts", read_numbers
        )
    elif silos is not None:
        each = int(_RECORDS[data] * (1 - _HELD_OUT) / len(silos))
        records = (max(1, each), _RECORDS[data])
    epsilon = ask("--epsilon", "Epsilon of each silo for the whole run", read_positive)
    if task is None or silos is None or records is None or epsilon is None or labels is None:
        return None
    if data != TEXTS:
        return Start(data, task, silos, records, epsilon)
    return None if folder is None else Start(data, task, silos, records, epsilon, texts.on_base(folder, labels))


def write_start(out: Path, name: str, start: Start, *, flower: bool = False) -> tuple[str, ...]:
    """Write a draft, and return the names of its files, the scenario first.

    Args:
        out: A folder that is not there yet.
        name: Of the scenario.
        start: What was said.
        flower: Whether `flwr run` is to run it too.

    Raises:
        ConfigError: When what was said makes no scenario, or it cannot be written.
    """
    text = start_text(name, start, secrets.randbelow(2**31), out)
    try:
        scenario_from_json(json.dumps(tomllib.loads(text)))
    except ConfigError as error:
        raise ConfigError(f"what was said makes no scenario: {error}") from None
    files = {SCENARIO: text.encode()}
    if start.data == OWN:
        files |= {"data.py": _data_py(start).encode(), "model.py": _MODEL_PY.encode()}
    if start.on_base is not None:
        files |= texts.files(start.on_base, start.silos, start.records[0])
    if flower:
        files[PROJECT] = project_text(name, Path.cwd(), out / SCENARIO).encode()
    try:
        out.mkdir(mode=0o700, parents=True)
        for file, content in reversed(files.items()):  # where the scenario stands, all that it names does
            (out / file).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(out / file, content)
    except FileExistsError:
        raise ConfigError(f"--out {out}: is there already; name a new folder") from None
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be written: {failed(error)}") from None
    return tuple(files)


def start_text(name: str, start: Start, seed: int, out: Path) -> str:
    """Return a commented scenario, which is to lie in a folder."""
    low, high = start.records
    rate = float(f"{min(1.0, _FULL_LOTS / low):.3g}")
    loss, learning_rate = ("mse", 0.2) if start.task == "regression" else ("cross-entropy", 0.5)
    model = _MODELS.get(start.data) if start.on_base is None else texts.model_section(start.on_base, out)
    return f"""# A draft, made by `fedmodel new`. It is public: the server and every silo read it, and nothing in it may
# be computed from private records. docs/scenarios.md says what each key means.

name = {json.dumps(name)}
summary = "one line about what is learnt, for whom"
rounds = 30          # at most; the noise is calibrated for all of them
seed = {seed}

[federation]
silos = {json.dumps(start.silos)}
min_silos = 3        # fewer in a sum, and the round fails

[encryption]
secure_aggregation = "on"    # the server opens sums, and no silo's update
bound = 4.0          # clips a coordinate of an update
colluding = 1        # one silo may work with the server

[model]
{model}

[training]
loss = "{loss}"
{_steps(start, learning_rate)}
local_steps = 1

[privacy]
unit = "record"      # "person" with max_records, where a person has several
epsilon = {start.epsilon!r}        # each silo calibrates its own noise to this, over all rounds
delta = 1e-{len(str(high))}         # under one over {high}, the most records of a silo by public knowledge
max_grad_norm = 1.0
sample_rate = {rate!r}    # each record's chance to be in a step
expected_batch_size = {max(1, int(rate * low))}   # the public divisor of sums: a silo has {low} records at least

[data]
{_data(start, name, out)}"""


def _steps(start: Start, learning_rate: float) -> str:
    """Return how steps are taken: of adapters, whose halves differ in size, by an optimiser that asks for neither."""
    if start.on_base is None:
        return f'optimizer = "sgd"\nlearning_rate = {learning_rate}'
    return (
        'optimizer = "adam"\nlearning_rate = 0.003\n'
        "max_physical_batch = 16    # texts in memory at once; a lot is summed batch by batch"
    )


def _data(start: Start, name: str, out: Path) -> str:
    """Return the section's lines but its heading."""
    if start.on_base is not None:
        return texts.data_section(start.on_base, name, out)
    return f"""{_own_data(start) if start.data == OWN else _on_board(start)}
[data.partition]     # of a simulation: how records are dealt to silos; docs/scenarios.md has more kinds
kind = "iid"
min_records = {start.records[0]}
{_ranges(start)}"""


def _own_data(start: Start) -> str:
    """Return what the section says of code that loads records."""
    bounds = (
        'task = "regression"\ntarget_range = [0.0, 1.0]    # public; a number outside is learnt as its end\n'
        if start.task == "regression"
        else ""
    )
    return f'use = "data:load"    # the function load in data.py, beside this file (docs/data.md)\n{bounds}'


def _on_board(start: Start) -> str:
    """Return what the section says of a data set on board."""
    grey = "reference_range = [0.0, 16.0]   # grey levels, by the format\n" if start.data == "digits" else ""
    held_out = f"held_out = {_HELD_OUT}       # the server's, on which it evaluates\n"
    return f"source = {json.dumps(start.data)}\n{held_out}{grey}"


def _ranges(start: Start) -> str:
    """Return the public ranges of a data set whose features have one each, as the built-in scenario has them."""
    if start.data != "breast-cancer":
        return ""
    text = builtin_scenarios()["hospitals"].read_text(encoding="utf-8")
    _, begin, ranges = text.partition("[data.reference_ranges]\n")
    said = "# Public reference ranges, each mapped onto [-1, 1], as in the built-in scenario hospitals."
    return f"\n{said}\n{begin}{ranges}"


def _data_py(start: Start) -> str:
    """Return the module that loads records, made-up ones."""
    low, silos = start.records[0], len(start.silos)
    kinds = {
        "classification": ("a class from 0 to 2", "x[:, :3].argmax(axis=1)"),
        "regression": ("a number from 0 to 1", "(1 / (1 + np.exp(-x[:, 0]))).astype(np.float32)"),
    }
    what, target = kinds[start.task]
    return f'''"""Records for the scenario beside this file. These are made up: put your own in their place."""

import numpy as np

TRAIN, TEST = {low * silos}, {max(100, min(low, 1000))}


def load():
    """Return the records that are dealt to silos, and those on which the server evaluates.

    Each is eight measures and {what}. docs/data.md lists the other forms that records may have.
    """
    draw = np.random.default_rng(1)
    x = draw.normal(size=(TRAIN + TEST, 8)).astype(np.float32)
    y = {target}
    return {{"train": (x[:TRAIN], y[:TRAIN]), "test": (x[TRAIN:], y[TRAIN:])}}
'''


_MODEL_PY: Final = '''"""The model of the scenario beside this file."""

from torch import nn


def net(shape, width: int = 16) -> nn.Module:
    """Return a network for records of a shape, which is filled in; other arguments stand under [model]."""
    (features,) = shape.features
    return nn.Sequential(nn.Linear(features, width), nn.ReLU(), nn.Linear(width, shape.outputs))
'''
