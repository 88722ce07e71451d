"""Text in JSON lines: what is learnt of it may be a class, several labels, a number, or the text itself."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fedmodel as fm
from fedmodel.config import Scenario, data_from_json
from fedmodel.data import silo_records
from fedmodel.data.json_lines import read_json_lines
from fedmodel.data.reading import Reading
from fedmodel.data.taken import Taken
from fedmodel.errors import DataError
from fedmodel.kinds import own_code
from fedmodel.kinds.shape import IGNORED, ArrayShape
from fedmodel.kinds.sources.json_lines import JsonLinesConfig

WORD = "hidden-word"
MODEL = """
from torch import nn


class Next(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Embedding(257, 8), nn.Linear(8, 257)

    def forward(self, tokens, mask):
        return self.out(self.embed(tokens))
"""
TASKS: dict[str, dict[str, Any]] = {
    "multi-label": {"task": "multi-label", "labels": ["pain", "fever", "rash"]},
    "regression": {"task": "regression", "target_range": [0.0, 10.0]},
    "next-token": {"task": "next-token"},
    "sequence-labels": {"task": "sequence-labels", "labels": ["other", "name"]},
}


def config(**said: Any) -> JsonLinesConfig:
    return JsonLinesConfig.model_validate({"source": "json-lines", "name": "notes", "length": 4, **said})


def read(folder: Path, told: list[Any], **said: Any) -> Taken:
    folder.mkdir(exist_ok=True)
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, told)))
    return read_json_lines(config(**said), folder, Reading())


def test_several_labels_are_a_list_of_some_of_them(tmp_path: Path) -> None:
    told = [["rash", "pain"], [], ["fever"]]
    found = read(tmp_path, [{"text": "a", "label": one} for one in told], **TASKS["multi-label"])
    assert found.y_N.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert config(**TASKS["multi-label"]).shape.targets == ArrayShape((3,), 2)


def test_a_number_is_mapped_from_its_public_range_and_bounded(tmp_path: Path) -> None:
    found = read(tmp_path, [{"text": "a", "label": one} for one in (0, 5, 10.0, 2.5, 99)], **TASKS["regression"])
    assert found.y_N.dtype == np.float32
    assert found.y_N.tolist() == [-1.0, 0.0, 1.0, -0.5, 1.0]
    assert config(**TASKS["regression"]).shape.target_range == (0.0, 10.0)


def test_a_text_is_its_own_target_moved_by_one(tmp_path: Path) -> None:
    found = read(tmp_path, [{"text": "abcdef"}, {"text": "xy"}, {"text": ""}], **TASKS["next-token"])
    assert isinstance(found.x, dict)
    token_NT, mask_NT = found.x["tokens"], found.x["mask"]
    assert token_NT.tolist() == [[98, 99, 100, 101], [121, 122, 0, 0], [0, 0, 0, 0]]
    assert found.y_N.tolist() == [[99, 100, 101, IGNORED], [122, IGNORED, IGNORED, IGNORED], [IGNORED] * 4]
    counts_NT = found.y_N != IGNORED
    assert np.array_equal(counts_NT[:, :-1], mask_NT[:, 1:] == 1)  # what counts is what stands
    assert config(**TASKS["next-token"]).shape.outputs == 257


@pytest.mark.parametrize("task", TASKS)
def test_a_folder_without_a_line_has_targets_of_the_tasks_shape(task: str, tmp_path: Path) -> None:
    found = read(tmp_path, [], **TASKS[task])
    assert found.y_N.shape == (0, *config(**TASKS[task]).shape.targets.size)


@pytest.mark.parametrize(
    ("task", "label", "why"),
    [
        ("multi-label", "pain", "'label' is a str, and a list of labels is needed, empty for none"),
        ("multi-label", ["pain", WORD], "'label' is none of data.labels: pain, fever, rash"),
        ("multi-label", ["pain", "pain"], "'label' names a label twice"),
        ("multi-label", [["pain"]], "'label' is a list, and text is needed"),
        ("multi-label", [True], "'label' is a bool, and text is needed"),
        ("regression", WORD, "'label' is a str, and a number is needed"),
        ("regression", True, "'label' is a bool, and a number is needed"),
        ("regression", None, "'label' is a NoneType, and a number is needed"),
        ("regression", math.nan, "'label' is no finite number"),
        ("regression", math.inf, "'label' is no finite number"),
        pytest.param("regression", 10**400, "'label' is no finite number", id="beyond every float"),
    ],
)
def test_a_label_that_the_task_does_not_have_is_named_by_its_line(
    task: str, label: Any, why: str, tmp_path: Path
) -> None:
    good = [] if task == "multi-label" else 1
    with pytest.raises(DataError, match=f"line 2: {why}$") as refused:
        read(tmp_path, [{"text": WORD, "label": good}, {"text": WORD, "label": label}], **TASKS[task])
    assert WORD not in str(refused.value)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({}, 'task = "classification" needs labels, two at least'),
        ({"labels": ["one"]}, 'task = "classification" needs labels'),
        ({"task": "multi-label"}, 'task = "multi-label" needs labels'),
        ({"task": "regression"}, "target_range, a public one, is given with"),
        ({"task": "regression", "target_range": [1.0, 1.0]}, "target_range must rise"),
        ({"task": "regression", "target_range": [0.0, 1.0], "labels": ["a", "b"]}, "has no labels"),
        ({"labels": ["a", "b"], "target_range": [0.0, 1.0]}, "target_range, a public one, is given with"),
        ({"task": "next-token", "label": "next"}, "predicts the text itself; leave label out"),
        ({"task": "next-token", "length": 1}, "needs a length of two"),
        ({"task": "sequence-labels"}, 'task = "sequence-labels" needs labels, two at least'),
        ({"task": "sequences"}, "Input should be 'classification', 'multi-label', 'regression', 'next-token' or"),
        ({"labels": ["a", "a"]}, "label 'a' is named twice"),
    ],
)
def test_a_section_that_says_two_things_is_refused(said: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        config(**said)


def test_what_is_not_said_is_not_written() -> None:
    """A scenario from before there were other tasks keeps its hash."""
    written = config(labels=["a", "b"]).model_dump_json()
    assert "task" not in written
    assert "target_range" not in written
    for said in TASKS.values():
        found = config(**said)
        assert data_from_json(found.model_dump_json()) == found
        assert data_from_json(found.model_dump_json(exclude_none=True)) == found


def test_texts_are_dealt_by_size_where_their_targets_have_no_label(tiny: Scenario, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": f"note {place}"}) for place in range(60)))
    document = tiny.model_dump(mode="json", exclude_none=True)
    document["data"] = config(**TASKS["next-token"], held_out=0.2, folder=str(tmp_path)).model_dump(exclude_none=True)
    sizes = [len(silo_records(Scenario.model_validate(document), silo)) for silo in tiny.federation.silos]
    assert sum(sizes) == 48
    assert len(set(sizes)) > 1
    document["data"]["partition"] = {"label_concentration": 0.5}
    with pytest.raises(DataError, match="deals by labels, and these targets are several numbers each"):
        silo_records(Scenario.model_validate(document), tiny.federation.silos[0])


def test_a_model_learns_the_next_letter(tiny_file: Path, tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    lines = "\n".join(json.dumps({"text": "abababab"}) for _ in range(120))
    (tmp_path / "texts" / "a.jsonl").write_text(lines)
    (tmp_path / "spelling.py").write_text(MODEL)
    begin = tiny_file.read_text().partition("[data]")[0].replace('kind = "mlp"', 'use = "spelling:Next"')
    data = '[data]\nsource = "json-lines"\nname = "texts"\nfolder = "{}"\nlength = 8\nheld_out = 0.2\n'
    (tmp_path / "s.toml").write_text(begin + data.format(tmp_path / "texts") + 'task = "next-token"\n')
    try:
        seeded = ["privacy.noise=seeded-unsafe", "training.learning_rate=5.0"]
        run = fm.simulate(tmp_path / "s.toml", seeded, out=tmp_path / "r")
    finally:
        own_code.close()
    assert run.figures["perplexity"] < 200  # guessing is 257
