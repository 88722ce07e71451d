"""Events survive storage unchanged, and a parser knows one list of mechanisms."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmodel.errors import LedgerError
from fedmodel.privacy.events import event_to_json
from fedmodel.privacy.mechanisms import event_from_json
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent

EVENT = DpSgdEvent(1.1, 0.5, 0.01, 3, denominator=64)

EVENTS = st.builds(
    DpSgdEvent,
    noise_multiplier=st.floats(0.2, 1e6),
    max_grad_norm=st.floats(1e-6, 1e6),
    sample_rate=st.floats(1e-9, 1.0),
    steps=st.integers(1, 10**6),
    denominator=st.integers(1, 10**9),
    noise_source=st.sampled_from(["os", "seeded-unsafe"]),
)


@given(EVENTS)
def test_events_read_back_exactly_and_canonically(event: DpSgdEvent) -> None:
    text = event_to_json(event)
    assert event_from_json(text) == event
    assert event_to_json(event_from_json(text)) == text


def test_the_stored_form_is_frozen() -> None:
    assert event_to_json(EVENT) == (
        '{"denominator":64,"max_grad_norm":0.5,"max_records":1,"mechanism":"dp-sgd","noise_multiplier":1.1,'
        '"noise_source":"os","realised_sample_rate":0.01,"sample_rate":0.01,"sampler":"poisson","steps":3}'
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("noise_multiplier", 0),
        ("noise_multiplier", -1.0),
        ("noise_multiplier", 1e-6),
        ("noise_multiplier", 10**400),
        ("steps", 10**8),
        ("noise_multiplier", "1"),
        ("noise_multiplier", True),
        ("max_grad_norm", 0.0),
        ("sample_rate", 0),
        ("sample_rate", 1.01),
        ("steps", 0),
        ("steps", 1.5),
        ("denominator", 0),
        ("noise_source", "mersenne"),
        ("sampler", "shuffle"),
        ("realised_sample_rate", 0),
        ("realised_sample_rate", 1.01),
        ("max_records", 0),
        ("max_records", 1001),
        ("max_records", 1.0),
        ("mechanism", "laplace"),
        ("mechanism", "os.system"),
    ],
)
def test_out_of_range_or_unknown_is_refused(field: str, value: object) -> None:
    document = {**json.loads(event_to_json(EVENT)), field: value}
    with pytest.raises(LedgerError):
        event_from_json(json.dumps(document))


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "{}", '{"mechanism":"dp-sgd"}', "not json", "[" * 1000, "9" * 1999, "[" * 200_000, "9" * 6000],
)
def test_what_is_no_event_is_refused(text: str) -> None:
    with pytest.raises(LedgerError):
        event_from_json(text)


def test_a_field_too_many_is_refused() -> None:
    with pytest.raises(LedgerError, match="one is missing or unknown"):
        event_from_json(json.dumps({**json.loads(event_to_json(EVENT)), "steps_more": 1}))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_no_event_holds_a_figure_that_is_no_number(value: float) -> None:
    with pytest.raises(LedgerError):
        DpSgdEvent(value, 1.0, 1.0, 1, 1)
