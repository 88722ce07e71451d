"""What tests of simulations share."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest


@pytest.fixture
def hears() -> Iterator[None]:
    """Hear Ctrl-C, which whoever started the tests in the background had them ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
