"""Text by a tokenizer, all the way: a table, lines and saved sets read it alike, simulated and deployed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fedmodel as fm
from fedmodel.config import CsvForm, Scenario, read_silo_file
from fedmodel.data import check_deployed, deployed_records, held_out_records, silo_records
from fedmodel.errors import ConfigError
from fedmodel.kinds import own_code
from scenarios.models.predict import predict
from scenarios.models.trained import read_model
from tests.conftest import TINY
from tests.fedmodel.data.test_tokenizer import laid
from tests.scenarios.deployment.test_own_tables import laid as kits_of

PARTIES = ("north", "south", "west", "held-out")
TEXTS = ["pain in the arm", "left arms", "the left", "pain pain"]
MODEL = """
from torch import nn


class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Embedding(10, 8), nn.Linear(8, 1)

    def forward(self, tokens, mask):
        weight = mask[:, :, None].float()
        return self.out((self.embed(tokens) * weight).sum(1) / weight.sum(1).clamp(min=1))
"""


def lay(folder: Path, kind: str, count: int = 4) -> dict[str, Any]:
    """Write every party's texts, and the tokenizer beside them; return the section of the scenario."""
    folder.mkdir(exist_ok=True)
    said = laid(folder / "tokenizer.json").model_dump(include={"sha256", "vocabulary"})
    for party in PARTIES:
        told = [(TEXTS[place % 4], ("no", "yes")[place % 2]) for place in range(count)]
        if kind == "table":
            (folder / f"{party}.csv").write_text("\n".join(["text,label", *map(",".join, told), ""]))
        else:
            (folder / party).mkdir(exist_ok=True)
            lines = [json.dumps({"text": text, "label": label}) for text, label in told]
            (folder / party / "a.jsonl").write_text("\n".join(lines))
    column = {"length": 6, "tokenizer": said}
    if kind == "table":
        data = {"source": "table", "label": "label", "columns": [{"name": "text", "type": "text", **column}]}
    else:
        data = {"source": "json-lines", **column}
    return {"name": "notes", "labels": ["no", "yes"], **data}


def scenario_of(tiny: Scenario, folder: Path, kind: str) -> Scenario:
    document = tiny.model_dump(mode="json", exclude_none=True)
    return Scenario.model_validate(document | {"data": {**lay(folder, kind), "folder": str(folder)}})


def test_a_table_and_lines_are_read_alike(tiny: Scenario, tmp_path: Path) -> None:
    for party in PARTIES:
        found = []
        for kind in ("table", "lines"):
            scenario = scenario_of(tiny, tmp_path / kind, kind)
            found.append(held_out_records(scenario) if party == "held-out" else silo_records(scenario, party))
        one, other = (each.x for each in found)
        assert isinstance(one, dict)
        assert isinstance(other, dict)
        for name in ("tokens", "mask"):
            assert one[name].dtype == other[name].dtype == np.int64
            assert np.array_equal(one[name], other[name])
        assert one["tokens"][0].tolist() == [2, 4, 5, 6, 8, 3]


@pytest.mark.parametrize("kind", ["table", "lines"])
def test_a_silo_reads_its_own_copy_and_refuses_where_a_byte_differs(kind: str, tiny: Scenario, tmp_path: Path) -> None:
    scenario = scenario_of(tiny, tmp_path / "own", kind)
    bare = scenario.model_copy(update={"data": scenario.data.model_copy(update={"folder": None})})
    kits_of(bare, tmp_path / "own", tmp_path / "kits")
    home = tmp_path / "kits" / "silos" / "north"
    law = read_silo_file(home / "silo.toml")
    check_deployed(bare, law, home)
    ours, theirs = deployed_records(bare, law, home, None), silo_records(scenario, "north")
    assert np.array_equal(ours.x["tokens"], theirs.x["tokens"])  # type: ignore[index]
    path = tmp_path / "own" / "tokenizer.json"
    path.write_bytes(path.read_bytes() + b" ")
    unsaid = law.model_copy(update={"tables": {"notes": law.tables["notes"].model_copy(update={"tokenizer": None})}})
    for one, why in (
        (law, r"tokenizer\.json: has sha256"),
        (unsaid, "does not say where its file lies; add tokenizer"),
    ):
        for look in (
            lambda one=one: check_deployed(bare, one, home),
            lambda one=one: deployed_records(bare, one, home, None),
        ):
            with pytest.raises(ConfigError, match=why) as said:
                look()
            assert "\n" not in str(said.value)


def test_a_model_is_trained_from_python_and_scores_with_the_tokenizer(tmp_path: Path) -> None:
    data = lay(tmp_path / "own", "table", 40)
    (tmp_path / "reads.py").write_text(MODEL)
    (column,) = data.pop("columns")
    known = column.pop("tokenizer")
    text = TINY.partition("[data]")[0].replace('kind = "mlp"', 'use = "reads:Reader"') + "[data]\n"
    text += "\n".join(
        f"{key} = {json.dumps(value)}" for key, value in {**data, "folder": str(tmp_path / "own")}.items()
    )
    text += "\n[[data.columns]]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in column.items())
    text += f'\ntokenizer = {{sha256 = "{known["sha256"]}", vocabulary = 10}}\n'
    (tmp_path / "s.toml").write_text(text)
    try:
        run = fm.simulate(tmp_path / "s.toml", out=tmp_path / "run")
        model, rows = read_model(run.folder), tmp_path / "own" / "held-out.csv"
        with pytest.raises(ConfigError, match=f"give its file as --tokenizer FILE, whose sha256 is {known['sha256']}"):
            predict(model, rows, CsvForm())
        scores = predict(model, rows, CsvForm(), tokenizer=tmp_path / "own" / "tokenizer.json")
    finally:
        own_code.close()
    truth = np.arange(40) % 2
    assert (scores.predicted_N == truth).mean() == pytest.approx(run.figures["accuracy"])
