"""What is remembered of how long things took."""

from __future__ import annotations

import time

import pytest

from fedmodel.learning.lasting import Lasted


def test_the_longest_time_of_each_thing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 5.0, 10.0, 12.0, 20.0, 21.0, 30.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    lasted = Lasted()
    for what in ("one", "one", "other"):
        with lasted.timed(what, 1):
            pass
    with pytest.raises(KeyError), lasted.timed("one", 2):
        raise KeyError
    assert [lasted.seconds(*what) for what in (("one", 1), ("other", 1), ("one", 2))] == [5.0, 1.0, 0.0]
    lasted.forget()
    assert lasted.seconds("one", 1) == 0.0
