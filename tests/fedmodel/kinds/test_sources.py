"""A source's section: its text, which silos' laws name by its hash, and the keys that are its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from pydantic import ValidationError

from fedmodel.config import data_from_json, read_scenario
from fedmodel.data.named import arrays, each
from fedmodel.kinds.shape import DataShape
from fedmodel.kinds.source import Dealt
from fedmodel.kinds.sources import SOURCES
from fedmodel.kinds.sources.digits import DigitsConfig
from fedmodel.kinds.sources.table import TableConfig

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


def test_relative_paths_of_a_source_begin_where_it_is_told() -> None:
    table, digits = (data_from_json(text) for text in (TABLE, DIGITS))
    assert isinstance(table, TableConfig)
    assert table.under(Path("/srv")) == table.model_copy(update={"folder": "/srv/x"})
    assert table.under(Path("/srv")).under(Path("/elsewhere")).under(Path("/srv")) == table.under(Path("/srv"))
    assert digits.under(Path("/srv")) is digits


def test_what_is_dealt_out_has_the_records_that_its_section_promises() -> None:
    held_out = {"held_out": 0.25, "reference_range": (0.0, 1.0)}
    for name, kind in SOURCES.items():
        assert kind.is_dealt == issubclass(kind, Dealt)
        if issubclass(kind, Dealt):
            source = kind.model_validate({"source": name, **held_out})
            x, y_N = source.load(7)
            assert {len(one) for one in arrays(x)} == {len(y_N)}
            assert each(x, lambda one: one.shape[1:]) == each(source.shape.arrays, lambda one: one.size)
            assert set(y_N) == set(range(source.shape.classes))
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
