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
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def same_bytes(seed: int = 0) -> Iterator[None]:
    """Let `os.urandom`, `secrets` and NumPy's own generators draw from a seed, in this process, for a while.

    Bytes never repeat within one such while, so that two keys or two draws of noise still differ.

    >>> with same_bytes():
    ...     first = os.urandom(8), os.urandom(8)
    >>> with same_bytes():
    ...     first == (os.urandom(8), os.urandom(8)), first[0] == first[1]
    (True, False)
    """
    drawn = random.Random(seed).randbytes  # noqa: S311 - it stands in for what is secret, in tests alone
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "urandom", drawn)
        patch.setattr(random, "_urandom", drawn)  # what `secrets` asks
        yield
