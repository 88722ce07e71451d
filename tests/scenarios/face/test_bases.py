"""A base and a script's texts: which tokens silos train on, whatever form texts have; what is declared; what is not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset as HuggingFace
from tokenizers import Tokenizer

import fedmodel as fm
from fedmodel.kinds import own_code
from fedmodel.kinds.shape import IGNORED
from scenarios.simulation.prepared import open_own_code
from scenarios.simulation.simulate import placed
from tests.bases import TOKENS, make_base

LENGTH = 5
TEXTS = ["good day", "bad night fine poor day", "", "fine"] * 6
LABELS = ["up", "down", "down", "up"] * 6
SAID: dict[str, Any] = {
    "silos": 2, "rounds": 1, "epsilon": 8.0, "delta": 1e-3, "max_grad_norm": 1.0, "sample_rate": 0.5, "seed": 1,
}  # fmt: skip
CLASSES: dict[str, Any] = {**SAID, "labels": ["down", "up"]}


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    own_code.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bases")
    for kind in ("encoder", "decoder"):
        make_base(folder / kind, kind)
    return folder


def classes_on(made: Path) -> fm.Base:
    return fm.Base(made / "encoder", task="sequence-classification", targets=["query"], length=LENGTH)


def next_on(made: Path) -> fm.Base:
    return fm.Base(made / "decoder", task="causal-lm", targets=["c_attn"], length=LENGTH)


def given(scenario: fm.Scenario) -> Any:
    """Return what the scenario's function returns, to whoever carries the run."""
    return scenario.objects["script:data"]()


def expected(made: Path, kind: str) -> tuple[list[list[int]], list[list[int]]]:
    """Return tokens and mask of `TEXTS`, as the library itself cuts and pads them."""
    found = Tokenizer.from_file(str(made / kind / "tokenizer.json"))
    found.enable_truncation(LENGTH)
    found.enable_padding(length=LENGTH, pad_id=0)
    read = found.encode_batch(TEXTS)
    return [one.ids for one in read], [one.attention_mask for one in read]


FORMS: dict[str, Any] = {
    "a pair": (TEXTS, LABELS),
    "a pair of arrays": (np.array(TEXTS), np.array(LABELS)),
    "a frame": pd.DataFrame({"text": TEXTS, "other": "of nobody's", "label": LABELS}),
    "a data set of Hugging Face's": HuggingFace.from_dict({"text": TEXTS, "label": LABELS, "id": TEXTS}),
    "columns": {"label": LABELS, "text": TEXTS},
    "another label": pd.DataFrame({"label": "of nothing", "text": TEXTS, "outcome": LABELS}),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_text_becomes_the_tokens_that_the_bases_own_tokenizer_makes_of_it(made: Path, form: str) -> None:
    more = {"label": "outcome"} if form == "another label" else {}
    scenario = fm.Scenario.of(model=classes_on(made), train=FORMS[form], **more, **CLASSES)
    found = given(scenario)
    tokens, mask = expected(made, "encoder")
    assert found["tokens"].tolist() == tokens
    assert found["mask"].tolist() == mask
    assert list(found[more.get("label", "label")]) == LABELS
    assert found.keys() == {"tokens", "mask", more.get("label", "label")}
    assert scenario.privacy.expected_batch_size == 4  # half of an even share of the 24 texts, less those held out


def test_a_text_learns_its_own_next_token_and_classes_are_the_bases_whatever_texts_there_are(made: Path) -> None:
    scenario = fm.Scenario.of(model=next_on(made), train=TEXTS, **SAID)
    found = given(scenario)
    tokens, mask = expected(made, "decoder")
    for at, token_T in enumerate(tokens):
        ahead = [one for one, stands in zip(token_T[1:], mask[at][1:], strict=True) if stands]
        assert found["label"][at].tolist() == ahead + [IGNORED] * (LENGTH - len(ahead))
    open_own_code(scenario, scenario)
    scenario.hand_over()
    shape = placed(scenario).data.shape
    assert (shape.task, shape.outputs) == ("next-token", TOKENS)
    assert shape.inputs is not None
    assert (shape.inputs["tokens"].below, shape.inputs["mask"].below) == (TOKENS, 2)


def test_each_silo_may_have_a_list_of_texts_and_the_server_its_own(made: Path) -> None:
    parts = [TEXTS[:16], TEXTS[16:]]
    said = {key: one for key, one in SAID.items() if key != "silos"}
    scenario = fm.Scenario.of(model=next_on(made), train=parts, test=TEXTS[:3], **said)
    found = given(scenario)
    tokens, _ = expected(made, "decoder")
    assert [part["tokens"].tolist() for part in found["train"]] == [tokens[:16], tokens[16:]]
    assert found["test"]["tokens"].tolist() == tokens[:3]
    assert scenario.privacy.expected_batch_size == 4


def test_whose_a_text_is_and_what_it_is_dealt_by_is_read_too(made: Path) -> None:
    frame = pd.DataFrame({"text": TEXTS, "label": LABELS, "writer": [f"w{at // 2}" for at in range(24)],
                          "ward": ["a", "b"] * 12, "left": 1.0})  # fmt: skip
    scenario = fm.Scenario.of(
        model=classes_on(made), train=frame, person="writer", partition=fm.ByColumn("ward"), **CLASSES
    )
    assert given(scenario).keys() == {"tokens", "mask", "label", "writer", "ward"}


def test_records_that_are_tokens_already_are_taken_as_they_are(made: Path) -> None:
    arrays = {"tokens": np.ones((8, LENGTH), np.int64), "mask": np.ones((8, LENGTH), np.int64), "label": np.arange(8)}
    scenario = fm.Scenario.of(model=classes_on(made), train=arrays, **SAID)
    assert given(scenario) is arrays
    assert scenario.privacy.expected_batch_size == 1


def test_a_scenario_keeps_its_base_when_it_is_changed_and_a_base_that_changed_is_refused(
    made: Path, tmp_path: Path
) -> None:
    make_base(tmp_path / "base", "encoder")
    base = fm.Base(tmp_path / "base", task="sequence-classification", adapt="head", length=LENGTH)
    scenario = fm.Scenario.of(model=base, train=(TEXTS, LABELS), **CLASSES).with_(rounds=2)
    assert scenario.model.use == f"hf:{tmp_path / 'base'}"  # type: ignore[attr-defined]
    assert str(tmp_path) not in scenario.toml()
    assert scenario.name == "base"
    with (tmp_path / "base" / "config.json").open("a") as file:
        file.write(" ")
    with pytest.raises(fm.ConfigError, match=r"is the base of SHA-256 .*, and the scenario says"):
        fm.simulate(scenario, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("base", "said", "told"), [
    ({}, {"train": (["good", None] * 4, [0, 1] * 4)}, "train: record 1: its 'text' is no text; leave such records out"),
    ({}, {"train": [(TEXTS, LABELS), (["fine", 3.5], ["up", "up"])]}, r"train\[1\]: record 1: its 'text' is no text"),
    ({}, {"train": pd.DataFrame({"note": TEXTS, "label": LABELS})}, "holds text, which no model takes"),
    ({"text": "note"}, {"train": pd.DataFrame({"note": TEXTS})}, "data.label is not said, and there is no such column"),
    ({"length": 2}, {"train": (TEXTS, LABELS)}, "length = 2 leaves no place beside 2 tokens"),
    ({"task": "token-classification"}, {"train": (TEXTS, LABELS)}, "what no column of texts says; give arrays tokens"),
    ({"task": "masked-lm"}, {"train": TEXTS}, "what no column of texts says; give arrays tokens"),
    ({"task": "causal-lm"}, {"train": {"text": TEXTS, "label": LABELS}, "label": "label"}, "leave label out"),
    ({"task": "causal-lm"}, {"train": TEXTS, "task": "classification"}, 'model.task = "causal-lm" learns next-token'),
    ({"task": "translation"}, {"train": (TEXTS, LABELS)}, "'translation' is none of a base's"),
    ({"targets": []}, {"train": (TEXTS, LABELS)}, 'adapt = "lora" needs targets'),
    ({"rank": 0}, {"train": (TEXTS, LABELS)}, "model.*rank"),
    ({"folder": "nowhere"}, {"train": (TEXTS, LABELS)}, "nowhere: the base cannot be read"),
    ({}, {"train": (TEXTS, LABELS), "model_args": {"width": 3}}, "are of a model of your own, and model is a base"),
])  # fmt: skip
def test_what_cannot_be_is_one_line_that_quotes_no_text_and_nothing_is_written(
    made: Path, tmp_path: Path, base: dict[str, Any], said: dict[str, Any], told: str
) -> None:
    more = {key: one for key, one in CLASSES.items() if key != "silos" or not isinstance(said["train"], list)}
    if str(base.get("task", "")) in ("causal-lm", "masked-lm"):
        more = {**more, "silos": 2, "labels": None}
    of_base: dict[str, Any] = {"folder": made / "encoder", "task": "sequence-classification", "targets": ["query"],
                               "length": LENGTH, **base}  # fmt: skip
    with pytest.raises(fm.FedmodelError, match=told) as found:
        fm.simulate(model=fm.Base(**of_base), out=tmp_path / "run", **{**more, **said})
    assert "\n" not in str(found.value)
    assert "night" not in str(found.value)
    assert not (tmp_path / "run").exists()
