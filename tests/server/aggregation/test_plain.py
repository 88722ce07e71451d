"""Averages weigh by public weights alone."""

from __future__ import annotations

import numpy as np
import pytest

from fedmodel.config import FederationConfig
from fedmodel.errors import ProtocolError
from server.aggregation.plain import average_updates


def test_the_average_is_uniform_unless_weights_are_declared() -> None:
    updates = {"a": np.array([1.0, 2.0], dtype=np.float32), "b": np.array([3.0, 6.0], dtype=np.float32)}
    uniform = FederationConfig(silos=("a", "b"))
    assert average_updates(updates, uniform).tolist() == [2.0, 4.0]
    weighted = FederationConfig(silos=("a", "b"), weights={"a": 3.0})
    assert average_updates(updates, weighted).tolist() == [1.5, 3.0]
    assert average_updates({"b": updates["b"]}, weighted).tolist() == [3.0, 6.0]


def test_no_update_has_no_average() -> None:
    federation = FederationConfig(silos=("a", "b"))
    with pytest.raises(ProtocolError, match="without updates"):
        average_updates({}, federation)
