"""The operating system's chance, the same in each run: for what is true of nearly all draws and not of all.

A noised mean is within five standard errors in all but one run of two million, an audit of correct code passes in all
but one of twenty thousand, and a suite has a thousand such assertions. What is under test there is what is made of the
bytes, not the bytes, so those tests are given the same ones each time: they pass always or never.

Does NOT reach what asks the operating system by itself: OpenSSL's keys and serial numbers of certificates, age's file
keys, child processes. Nothing that hangs on those is asserted of nearly all draws.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import pytest


@contextmanager
def same_bytes(seed: int = 0) -> Iterator[None]:
    """Let `os.urandom`, `secrets` and NumPy's own generators draw from a seed, in this process, for a while.

    Each module that asks has a stream of its own: what another draws once only, when it is imported or before its cache
    is filled, moves nobody's, so the order of tests changes nothing. Within one such while no bytes come again, so that
    two keys or two draws of noise still differ.

    >>> import uuid
    >>> with same_bytes():
    ...     first = os.urandom(8), os.urandom(8)
    >>> with same_bytes():
    ...     first == (os.urandom(8), os.urandom(8)), first[0] == first[1]
    (True, False)
    >>> with same_bytes():
    ...     moved = uuid.uuid4(), os.urandom(8)
    ...     first[0] == moved[1]
    True
    """
    streams: dict[str, random.Random] = {}

    def drawn(size: int) -> bytes:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_globals["__name__"] in ("random", "secrets"):
            frame = frame.f_back
        name = frame.f_globals["__name__"] if frame is not None else ""
        if name not in streams:
            streams[name] = random.Random(f"{seed} {name}")  # noqa: S311 - for what is secret, in tests alone
        return streams[name].randbytes(size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "urandom", drawn)
        patch.setattr(random, "_urandom", drawn)  # what `secrets` asks
        yield
