"""What is made of an answer that is none."""

from __future__ import annotations

import logging

import pytest
from flwr.app import Error, Message, Metadata

from fedmodel import wire
from server.answers import NoAnswer, answered


def refused(error: Error) -> Message:
    """An answer that holds this instead."""
    metadata = Metadata(1, "m", 1, 2, "", "", 0.0, 60.0, "train")
    return Message(metadata=metadata, error=error)  # type: ignore[call-overload, no-any-return]


def test_an_error_of_flowers_is_logged_in_words_of_ours_and_a_refusal_is_not(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), pytest.raises(NoAnswer, match=r"^policy-refused$"):
        answered(refused(wire.refusal("policy-refused")))
    assert caplog.messages == []
    with caplog.at_level(logging.WARNING), pytest.raises(NoAnswer, match=r"^lost$"):
        answered(refused(Error(8, "crashed at Ada Lovelace")))
    assert caplog.messages == [
        "in place of a silo's answer came an error of Flower's: the process of the silo's app crashed"
    ]
