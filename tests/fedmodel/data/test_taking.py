"""Every form of a user's data set gives the same records, and what breaks a rule is one line without a value."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from datasets import Dataset as HuggingFace
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from fedmodel.data.keys import Keys
from fedmodel.data.named import arrays
from fedmodel.data.records import Records
from fedmodel.data.taken import numbered
from fedmodel.data.taking import take
from fedmodel.errors import DataError

X = np.random.default_rng(0).normal(size=(10, 3))
Y = np.array([0, 1, 1, 0, 1, 0, 0, 1, 1, 0])
WHERE = 'data.use = "data:load", silo north'
FRAME = pd.DataFrame(X, columns=["a", "b", "c"]).assign(label=Y)


class Pairs(Dataset[Any]):
    """A map-style data set, with one thing wrong at one place where a test asks for it."""

    def __init__(self, at: int | None = None, wrong: Any = None, length: int = 10) -> None:
        self.at, self.wrong, self.length = at, wrong, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, place: int) -> Any:
        if place == self.at:
            if isinstance(self.wrong, Exception):
                raise self.wrong
            return self.wrong
        return torch.tensor(X[place]), int(Y[place])


class Named(Pairs):
    def __getitem__(self, place: int) -> Any:
        return {"x": X[place], "label": Y[place]}


class Restless(Pairs):
    def __getitem__(self, place: int) -> Any:
        return torch.rand(3), 0


class Growing(Pairs):
    def __len__(self) -> int:
        self.length -= 1
        return self.length


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        yield X[0], 0


@pytest.mark.parametrize(
    "thing",
    [
        (X, Y),
        (torch.tensor(X), torch.tensor(Y)),
        (torch.tensor(X), torch.tensor(Y).float()[:, None]),  # as binary losses of torch take labels
        (X, Y.astype(bool)),
        (FRAME[["a", "b", "c"]], FRAME["label"]),
        TensorDataset(torch.tensor(X), torch.tensor(Y)),
        Pairs(),
        FRAME,
        pl.DataFrame({"a": X[:, 0], "b": X[:, 1], "c": X[:, 2], "label": Y}),
        pa.table({"a": X[:, 0], "b": X[:, 1], "c": X[:, 2], "label": Y}),
    ],
    ids=lambda thing: type(thing).__module__ + "." + type(thing).__name__,
)
def test_every_form_of_one_array_gives_the_same_records(thing: object) -> None:
    found = take(thing, WHERE, Keys())
    assert isinstance(found.x, np.ndarray)
    assert (found.x.dtype, found.y_N.dtype) == (np.float32, np.int64)
    assert np.array_equal(found.x, X.astype(np.float32))
    assert np.array_equal(found.y_N, Y)
    assert np.array_equal(found.person_N, np.arange(10))


@pytest.mark.parametrize(
    "thing",
    [
        ({"x": X}, Y),
        {"x": X, "label": Y},
        Named(),
        HuggingFace.from_dict({"x": X.tolist(), "label": Y.tolist()}),
        HuggingFace.from_dict({"x": X.tolist(), "label": Y.tolist()}).with_format("torch"),
    ],
)
def test_every_form_of_named_arrays_gives_the_same_records(thing: object) -> None:
    found = take(thing, WHERE, Keys())
    assert isinstance(found.x, dict)
    assert list(found.x) == ["x"]
    assert np.array_equal(found.x["x"], X.astype(np.float32))
    assert np.array_equal(found.y_N, Y)


def test_whole_numbers_stay_whole_but_in_a_frame() -> None:
    tokens = np.arange(30, dtype=np.uint8).reshape(10, 3)
    found = take(({"tokens": tokens, "there": tokens > 3}, Y), WHERE, Keys())
    assert {one.dtype for one in arrays(found.x)} == {np.dtype(np.int64)}
    frame = take(pd.DataFrame({"a": [1, 2], "b": [True, False], "label": [0, 1]}), WHERE, Keys())
    assert isinstance(frame.x, np.ndarray)
    assert frame.x.tolist() == [[1.0, 1.0], [2.0, 0.0]]


def test_text_labels_are_places_among_the_named_classes() -> None:
    text = FRAME.assign(outcome=np.where(Y, "ward", "home")).drop(columns="label")
    assert np.array_equal(take(text, WHERE, Keys("outcome", labels=("home", "ward"))).y_N, Y)
    with pytest.raises(DataError, match=r"record 1: its label is none of data\.labels: home, bed$"):
        take(text, WHERE, Keys("outcome", labels=("home", "bed")))


def test_persons_are_numbered_as_they_come() -> None:
    who = ["u", "b", "u", "z", "b", "a", "a", "a", "a", "u"]
    for thing in (FRAME.assign(who=who), {"x": X, "label": Y, "who": who}):
        found = take(thing, WHERE, Keys(person="who"))
        assert found.person_N.tolist() == [0, 1, 0, 2, 1, 3, 3, 3, 3, 0]


class Told(Pairs):
    """Samples whose person and label are text of any length, the first one's being the shortest."""

    def __init__(self, who: list[str]) -> None:
        super().__init__()
        self.who = who

    def __getitem__(self, place: int) -> Any:
        return {"x": X[place], "label": ("a", "bed")[Y[place]], "who": self.who[place]}


def test_text_of_a_sample_is_taken_whole_however_long_the_first_ones_is() -> None:
    """Ids that were cut to one length would be one person's."""
    found = take(Told(["1", "10", "11", "1", "2", "10", "2", "3", "3", "1"]), WHERE, Keys("label", "who", ("a", "bed")))
    assert found.person_N.tolist() == [0, 1, 2, 0, 3, 1, 3, 4, 4, 0]
    assert np.array_equal(found.y_N, Y)


@pytest.mark.parametrize("form", [list, lambda who: np.array(who, dtype=object), pd.Series])
def test_one_long_id_asks_for_no_more_memory_than_itself(form: Any) -> None:
    who = ["x" * 1_000_000, *map(str, range(200)), "7"]
    given = form(who)
    tracemalloc.start()
    try:
        found = numbered(given, len(who))
        assert tracemalloc.get_traced_memory()[1] < 10_000_000  # as an array of one width: 800 million
    finally:
        tracemalloc.stop()
    assert found.tolist() == [*range(201), 8]


@pytest.mark.parametrize(
    "who", [[3, 3.0, 1, 3], np.array([3, 3, 1, 3]), ["3", 3, 1, "3"], np.array([b"3", b"3", b"1", b"3"])]
)
def test_persons_are_alike_where_their_ids_are_as_text(who: Any) -> None:
    assert numbered(who, 4).tolist() == [0, 0, 1, 0]


def test_real_targets_are_taken_where_they_are_asked_for() -> None:
    found = take((X, X[:, 0]), WHERE, Keys(real=True))
    assert found.y_N.dtype == np.float32
    assert np.array_equal(found.y_N, X[:, 0].astype(np.float32))


WORD = "hidden-word"
NAN = X.copy()
NAN[6, 1] = np.nan


@pytest.mark.parametrize(
    ("thing", "said"),
    [
        (WORD, "is a str, which is no data set"),
        (None, "is a NoneType, which is no data set"),
        (X, "is one array, without targets"),
        (Stream(), "is a Stream, which can only be gone through"),
        (iter([1]), "can only be gone through"),
        (DataLoader(Pairs()), "is a DataLoader, which hands out lots; give the data set"),
        ((X, Y[:5]), "several lengths"),
        ((X[:0], Y[:0]), "holds no record"),
        (Pairs(length=0), "holds no record"),
        (Pairs(length=12), "record 10 is not there, and its length says that there are more"),
        (Growing(length=10), "its length is another one each time"),
        (Restless(), "record 0 is another one each time"),
        ((NAN, Y), "record 6: a value of x is NaN, infinite or beyond float32"),
        ((X * 1e300, Y), "record 0: a value of x is NaN, infinite or beyond float32"),
        ((X, Y + 0.5), "record 0: its label is not a whole number"),
        ((X, np.array([WORD] * 10)), "its label holds text, which no model takes; .* as data.labels"),
        ((np.array([WORD] * 10), Y), "x holds text"),
        ((np.array([[1], [1, 2]], dtype=object), Y[:2]), r"x has rows of several shapes, such as \[1\] and \[2\]"),
        ((np.array(["2020-01-01"] * 10, dtype="datetime64[D]"), Y), "x is of type datetime64"),
        ((np.array(7.0), Y), "x is one number"),
        ((X[:, :0], Y), r"x of a record has shape \[0\], which no model takes"),
        ((np.full((10, 1), 2**63, dtype=np.uint64), Y), "64 bits with a sign"),
        (Pairs(5, RuntimeError(WORD)), "record 5: __getitem__ raised RuntimeError; run it alone"),
        (Pairs(5, IndexError(WORD)), "record 5 is not there, and its length says that there are more"),
        (Pairs(5, (X[5][:2], 1)), r"record 5: x has shape \[2\], and record 0's \[3\]"),
        (Pairs(5, (np.array([1, 2, 3]), 1)), "record 5: x is of whole numbers, and record 0's of real numbers"),
        (Pairs(5, (X[5].astype(np.float32), 1)), "record 5: x is of float32, and record 0's of float64; each needs"),
        (Pairs(5, (torch.tensor(X[5]).half(), 1)), "record 5: x is of float16, and record 0's of float64"),
        (Pairs(5, (torch.tensor(X[5]).bfloat16(), 1)), "record 5: x is of float32, and record 0's of float64"),
        (Pairs(5, (X[5], np.uint8(1))), "record 5: its label is of uint8, and record 0's of int64"),
        (Pairs(5, (X[5], True)), "record 5: its label is of bool, and record 0's of int64"),
        (Pairs(5, (X[5] * 1e300, 1)), "record 5: a value of x is NaN, infinite or beyond float32"),
        (Pairs(5, (X[5], 0.5)), "record 5: its label is of real numbers, and record 0's of whole numbers"),
        (Pairs(5, (WORD, 1)), "record 5: x holds text"),
        (Pairs(5, (X[5], WORD)), "record 5: its label holds text"),
        (Pairs(5, (X[5], 1, 2)), "record 5: is a tuple, which is no sample"),
        (Pairs(5, {"x": X[5], "label": 1, "more": 1}), "record 5 has other parts than record 0"),
        (Pairs(5, {"x": X[5], "outcome": 1}), "record 5: data.label is not said, and there is no such column among x"),
        (FRAME.drop(columns="label"), "data.label is not said, and there is no such column among a, b, c"),
        (FRAME[["label"]], "has no column besides the label"),
        ({"label": Y}, "has nothing besides the label"),
        (pd.concat([FRAME, FRAME], axis=1), "two columns of one name"),
        (FRAME.assign(note=WORD), "column 'note' holds text"),
        (FRAME.assign(note=[None] * 10), "column 'note' lacks a value"),
        (FRAME.assign(day=pd.Timestamp("2020-01-01")), "column 'day' is of type datetime64"),
        (pl.DataFrame({"a": [1, None], "label": [0, 1]}), "record 1: a value of column 'a' is NaN"),
        (HuggingFace.from_dict({"text": [WORD] * 3, "label": [0, 1, 1]}), "'text' holds text"),
        (HuggingFace.from_dict({"t": [[1], [1, 2]], "label": [0, 1]}), "'t' has rows of several shapes"),
    ],
)
def test_what_breaks_a_rule_is_one_line_without_a_value(thing: object, said: str) -> None:
    with pytest.raises(DataError, match=said) as refused:
        take(thing, WHERE, Keys())
    text = str(refused.value)
    assert text.startswith(f"{WHERE}: ")
    assert "\n" not in text
    assert WORD not in text
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


def test_a_key_that_is_not_there_is_named() -> None:
    with pytest.raises(DataError, match=r"data\.label = 'outcome', and there is no such column among a, b, c, label"):
        take(FRAME, WHERE, Keys("outcome"))
    with pytest.raises(DataError, match=r"data\.person = 'who' is no column of a, b, c, label"):
        take(FRAME, WHERE, Keys(person="who"))


def test_a_data_set_does_not_show_in_a_repr() -> None:
    assert repr(take((X, Y), WHERE, Keys())) == "Taken(...)"


def trained(who: dict[int, float]) -> set[int]:
    """Which records train where each person has one at most; a record is known by its number."""
    given = pd.DataFrame({"x": list(who), "label": 0, "who": list(who.values())})
    found = take(given, WHERE, Keys(person="who"))
    kept = Records(found.x, found.y_N, found.person_N).capped("person", 1)
    return set(kept.x_NF[:, 0].astype(int).tolist())


def test_whoever_leaves_changes_no_other_persons_records() -> None:
    """All without an id would be one person, of whom one record trains: who left would let another's in."""
    everybody = {0: 7.0, 1: np.nan, 2: np.nan, 3: 8.0}
    with pytest.raises(DataError, match=r"record 1: 'who', which says whose it is, is missing; give every record an"):
        trained(everybody)
    some = {0: 7.0, 1: 9.0, 2: 10.0, 3: 8.0, 4: 9.0}
    assert trained(some) - trained({place: one for place, one in some.items() if one != 9}) == {1}


TOO_LARGE = "is a number with a fraction, or too large for its type to tell it apart from others"
MISSING = "is missing"
WRITTEN = "is what programs write where an id is missing"


@pytest.mark.parametrize(
    ("who", "rule"),
    [
        ([1, None, "b"], MISSING),
        ([1, float("nan"), 2], MISSING),
        (pd.Series([1, pd.NA, 2], dtype="Int64"), MISSING),
        (pd.Series(["a", pd.NA, "b"], dtype=object), WRITTEN),
        (pd.Series(["a", None, "b"]), MISSING),
        (pd.to_datetime(pd.Series(["2026-01-01", None, "2026-01-02"])), WRITTEN),
        (pa.chunked_array([[1, None, 2]]), MISSING),
        (["a", " ", "b"], "is empty, or nothing but space"),
        (["a", "nan", "b"], WRITTEN),
        (["7", "7.0", "8"], "is a number with a fraction or an exponent"),
        ([1.0, 2.5, 3.0], TOO_LARGE),
        ([1.0, 2.0**53, 3.0], TOO_LARGE),
        (np.array([1, 2**24, 3], dtype=np.float32), TOO_LARGE),
        (torch.tensor([1.0, 2.0**24, 3.0]), TOO_LARGE),
        ([["a"], ["b"], ["c"]], "is neither text nor a whole number"),
    ],
)
def test_an_id_that_could_be_of_several_persons_is_refused(who: Any, rule: str) -> None:
    place = 0 if isinstance(who, list) and isinstance(who[0], list) else 1
    with pytest.raises(DataError) as refused:
        take({"x": X[:3], "label": Y[:3], "who": who}, WHERE, Keys(person="who"))
    assert str(refused.value) == (
        f"{WHERE}: record {place}: 'who', which says whose it is, {rule}; give every record an id, as text or as a"
        " whole number, or leave such records out"
    )


@pytest.mark.parametrize(
    "who",
    [
        np.array([7, "7", 7.0, "P 1", "P 1 "], dtype=object),
        [np.int64(7), np.float32(7), b"7", "P\u00a01", "P 1"],
        [torch.tensor(7), "7", np.array(7), "P 1", "P 1\t"],
    ],
)
def test_one_person_is_one_however_the_id_was_kept(who: Any) -> None:
    """As two persons she would have two records where she may have one, and one of hers could be held out."""
    found = take({"x": X[:5], "label": Y[:5], "who": who}, WHERE, Keys(person="who"))
    assert found.person_N.tolist() == [0, 0, 0, 1, 1]
    assert found.persons == {"7", "P 1"}


def test_several_ids_for_a_record_are_refused() -> None:
    with pytest.raises(DataError, match=r"'who' has several values for a record; give one id for each"):
        take({"x": X[:3], "label": Y[:3], "who": np.ones((3, 2))}, WHERE, Keys(person="who"))


class Numbered(Pairs):
    """Samples whose person is a real number, two of which float32 does not tell apart."""

    def __getitem__(self, place: int) -> Any:
        return {"x": X[place], "label": Y[place], "who": 2.0**24 + place // 2}


def test_ids_of_samples_are_not_rounded() -> None:
    found = take(Numbered(), WHERE, Keys(person="who"))
    assert found.person_N.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_a_site_is_one_however_its_number_was_kept() -> None:
    """As "1.0" it would be no silo's name, and silos' own sites would be dealt out at random."""
    site = [2, 1, 1, 2, 3, 3, 2, 1, 1, 3]
    for given in (site, np.array(site, dtype=float), pd.Series(site, dtype="Int64"), [str(one) for one in site]):
        found = take(FRAME.assign(site=given), WHERE, Keys(group="site"))
        assert found.group_N is not None
        assert found.group_N.tolist() == [str(one) for one in site]
    halves = take(FRAME.assign(site=np.array(site) / 2), WHERE, Keys(group="site"))
    assert halves.group_N is not None
    assert halves.group_N.tolist()[:2] == ["1.0", "0.5"]


@pytest.mark.parametrize("none", [None, np.nan, pd.NA])
def test_a_record_that_is_of_no_site_is_refused(none: Any) -> None:
    for sites in ([2.0, none, *[1.0] * 8], ["b", none, *["a"] * 8]):
        with pytest.raises(
            DataError, match=r"record 1: 'site', by which records are dealt, is missing; say it, or leave"
        ):
            take(FRAME.assign(site=sites), WHERE, Keys(group="site"))


@pytest.mark.parametrize(
    ("key", "called"), [("x", "'x'"), ("label", "its label"), ("who", "'who'"), ("site", "'site'")]
)
def test_what_is_masked_is_no_value(key: str, called: str) -> None:
    """Behind a mask stands whatever was there before; of ids, often one for all that are missing."""
    given = {"x": X, "label": Y, "who": np.arange(10) // 2, "site": np.arange(10) % 2}
    keys = Keys(person="who", group="site")
    whole = {name: np.ma.masked_array(one, mask=np.zeros(one.shape, bool)) for name, one in given.items()}
    assert take(whole, WHERE, keys).person_N.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    mask = np.zeros(given[key].shape, bool)
    mask[3] = True
    with pytest.raises(DataError) as refused:
        take(given | {key: np.ma.masked_array(given[key], mask=mask)}, WHERE, keys)
    assert str(refused.value) == (
        f"{WHERE}: {called} lacks a value; fill it in by a public constant, or leave such records out"
    )
