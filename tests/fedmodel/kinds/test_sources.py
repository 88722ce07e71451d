"""A source's section: its text, which silos' laws name by its hash, and the keys that are its own."""

from __future__ import annotations

import gzip
from datetime import date
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError
from sklearn import datasets

from fedmodel.config import data_from_json, read_scenario
from fedmodel.config.kinds import DataConfig
from fedmodel.data.named import arrays, each
from fedmodel.errors import ConfigError, DataError
from fedmodel.kinds.files import Files
from fedmodel.kinds.on_disk import OnDisk
from fedmodel.kinds.shape import ArrayShape, DataShape
from fedmodel.kinds.source import Dealt, Source
from fedmodel.kinds.sources import SOURCES, digits
from fedmodel.kinds.sources.digits import DigitsConfig
from fedmodel.kinds.sources.own import OwnConfig
from fedmodel.kinds.sources.table import TableConfig

DATA: TypeAdapter[Source] = TypeAdapter(DataConfig)
# Written before each source had keys of its own.
DIGITS = (
    '{"source":"digits","held_out":0.25,"reference_range":[0.0,16.0],"reference_ranges":{},"feature_bound":3.0,'
    '"records":100,"features":10,"records_per_person":1,"partition":{"size_concentration":10.0,'
    '"label_concentration":10.0,"min_records":1},"name":null,"label":null,"labels":[],"columns":[],"person":null,'
    '"folder":null}'
)
TABLE = (
    '{"source":"table","held_out":null,"reference_range":null,"reference_ranges":{},"feature_bound":3.0,"records":100,'
    '"features":10,"records_per_person":1,"partition":{"size_concentration":10.0,"label_concentration":10.0,'
    '"min_records":1},"name":"admissions","label":"outcome","labels":["home","ward"],"columns":[{"name":"smoker",'
    '"type":"boolean","range":null,"limits":null,"categories":[],"missing":"refuse","fill":null}],"person":"patient",'
    '"folder":"x"}'
)


@pytest.mark.parametrize("text", [DIGITS, TABLE], ids=["digits", "table"])
def test_the_first_sources_are_read_and_written_to_the_letter_as_they_were(text: str) -> None:
    found = data_from_json(text)
    assert found.model_dump_json() == text
    assert data_from_json(found.model_dump_json(exclude_none=True)) == found
    assert type(found).model_validate(found.model_dump()) == found


def test_the_key_of_another_source_is_read_only_where_it_says_nothing() -> None:
    assert data_from_json(DIGITS.replace('"name":null,', "")) == data_from_json(DIGITS)
    for said in ('"records":99', '"records":true', '"records":null', '"records":[]'):
        with pytest.raises(ValidationError, match=r"digits\.records\s+Extra inputs are not permitted"):
            data_from_json(DIGITS.replace('"records":100', said))


def test_a_table_may_be_called_as_a_kind_that_has_names_of_its_own() -> None:
    for name in ("own", "images", "idx"):
        assert data_from_json(TABLE.replace('"admissions"', f'"{name}"')).data_set == name
    with pytest.raises(
        ValidationError,
        match="none of breast-cancer, coil-caravan, digits, german-credit, metabric, synthetic, table, text-files, uci",
    ):
        data_from_json(TABLE.replace('"admissions"', '"digits"'))


def test_relative_paths_of_a_source_begin_where_it_is_told() -> None:
    table, digits = (data_from_json(text) for text in (TABLE, DIGITS))
    assert isinstance(table, TableConfig)
    assert table.under(Path("/srv")) == table.model_copy(update={"folder": "/srv/x"})
    assert table.under(Path("/srv")).under(Path("/elsewhere")).under(Path("/srv")) == table.under(Path("/srv"))
    assert digits.under(Path("/srv")) is digits


def test_what_is_dealt_out_has_the_records_that_its_section_promises() -> None:
    held_out = {"held_out": 0.25, "reference_range": (0.0, 1.0)}
    for name, kind in SOURCES.items():
        assert kind.is_dealt == issubclass(kind, Dealt | OwnConfig | Files)
        if issubclass(kind, Dealt) and not issubclass(kind, OnDisk):  # whose file nobody has here
            source = kind.model_validate({"source": name, **held_out})
            x, y_N = source.load(7)
            assert {len(one) for one in arrays(x)} == {len(y_N)}
            assert each(x, lambda one: one.shape[1:]) == each(source.shape.arrays, lambda one: one.size)
            assert set(y_N) == set(range(source.shape.targets.below or 0))
            again, _ = source.load(7)
            assert all(np.array_equal(one, other) for one, other in zip(arrays(x), arrays(again), strict=True))
            assert source.persons(len(y_N), 7).tolist() == list(range(len(y_N)))
            assert source.data_set == name


def test_a_claim_for_persons_is_refused_of_a_kind_that_does_not_say_whose_records_are() -> None:
    class Silent(Dealt):
        shape: ClassVar = DataShape((1,), 2)
        described: ClassVar = "nobody knows whose"

        def load(self, seed: int) -> Any:
            raise NotImplementedError

    reason = Silent(source="silent", held_out=0.5).why_no_persons()
    assert reason == "source = 'silent' does not say whose a record is; take another unit"


def test_the_digits_of_the_shipped_scenario_are_of_this_kind() -> None:
    assert isinstance(read_scenario("digits").data, DigitsConfig)


OWN = {"use": "data:load", "held_out": 0.2, "path": "x", "depth": 3, "scales": [1.0, 2.0], "more": {"a": True}}


def test_a_section_that_names_a_function_is_of_a_users_own_and_gives_it_its_other_keys() -> None:
    found = DATA.validate_python(OWN)
    assert isinstance(found, OwnConfig)
    assert found.arguments == {"path": "x", "depth": 3, "scales": [1.0, 2.0], "more": {"a": True}}
    assert data_from_json(found.model_dump_json()) == found
    assert data_from_json(found.model_dump_json(exclude_none=True)) == found
    with pytest.raises(ConfigError, match=r"data\.features or data\.inputs, and data.classes, say what is public"):
        _ = found.shape
    assert found.why_not_deployed() is not None
    others = [kind for name, kind in SOURCES.items() if name != "own" and not issubclass(kind, Files)]
    known = (Source.why_not_deployed, Dealt.why_not_deployed, OnDisk.why_not_deployed)
    assert all(kind.why_not_deployed in known for kind in others)
    fraud = SOURCES["ulb-fraud"].model_validate({"source": "ulb-fraud", "held_out": 0.3, "file": "x.csv"})
    assert "give each silo a table of its own" in str(fraud.why_not_deployed())
    assert fraud.under(Path("/srv")) == fraud.model_copy(update={"file": "/srv/x.csv"})


@pytest.mark.parametrize(
    ("said", "shape"),
    [
        ({"features": [3], "classes": 4}, DataShape((3,), 4)),
        ({"features": [8], "below": 9, "classes": 2}, DataShape((8,), 2, below=9)),
        (
            {"inputs": {"tokens": {"size": [8], "below": 9}, "age": {"size": []}}, "labels": ["a", "b", "c"]},
            DataShape(
                (), 3, inputs={"tokens": ArrayShape((8,), 9), "age": ArrayShape(())}, labels=("a", "b", "c")
            ),
        ),
    ],
)  # fmt: skip
def test_the_shape_of_a_users_own_records_is_what_is_declared(said: dict[str, Any], shape: DataShape) -> None:
    assert DATA.validate_python(OWN | said).shape == shape


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"features": [3], "inputs": {"x": {"size": [3]}}}, "features, of one array, or inputs"),
        ({"below": 3, "inputs": {"x": {"size": [3]}}}, "below is of records that are one array"),
        ({"inputs": {"pixel values": {"size": [3]}}}, "'pixel values', by which no model can be called"),
        ({"labels": ["a", "b"], "classes": 3}, "labels names 2 classes, and classes = 3"),
        ({"use": "no colon"}, "names no code"),
        ({"day": date(2020, 1, 1)}, "day is a date; arguments are text"),
        ({"held_out": 1.0}, "less than 1"),
        ({"name": "digits"}, "name = 'digits' is what a data set on board is called"),
        ({"target_range": [0.0, 1.0]}, 'target_range is given with task = "regression", and only then'),
        ({"task": "regression", "target_range": [1.0, 0.0]}, "and must rise"),
        ({"task": "regression", "labels": ["a", "b"]}, 'labels name classes, which task = "regression" has not'),
        ({"task": "ranking"}, "Input should be 'classification', 'multi-label'"),
    ],
)
def test_a_section_of_a_users_own_that_could_be_read_two_ways_is_refused(said: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        DATA.validate_python(OWN | said)


def test_the_digits_are_those_that_scikit_learn_loads() -> None:
    data = read_scenario("digits").data
    assert isinstance(data, DigitsConfig)
    images, labels = data.load(0)
    wanted = datasets.load_digits()
    np.testing.assert_array_equal(images[:, 0], wanted.images)
    np.testing.assert_array_equal(labels, wanted.target)
    assert (images.dtype, labels.dtype) == (np.float64, np.int64)


@pytest.mark.parametrize(
    "there", [None, b"no gzip", gzip.compress(b"no,digits")], ids=["missing", "damaged", "another"]
)
def test_digits_that_scikit_learn_lacks_are_refused_in_one_line(
    there: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder := tmp_path / "datasets" / "data").mkdir(parents=True)
    if there is not None:
        (folder / "digits.csv.gz").write_bytes(there)
    spec = ModuleSpec("sklearn", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(digits, "find_spec", lambda name: spec)
    with pytest.raises(
        DataError, match=r"digits\.csv\.gz: is missing or damaged, .* install scikit-learn again$"
    ) as told:
        DATA.validate_json(DIGITS).load(0)
    assert "\n" not in str(told.value)
