"""Fixtures that are made once for all workers of a session: whoever asks first makes them, and the others wait.

What is made is a folder, and nobody alters it: a test that does takes a copy. Workers are processes of their own, so a
fixture of scope "session" alone is made by each of them, and again for each file of tests that imports it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return a session's one folder of a name.

    Args:
        factory: Pytest's; with xdist its base is a worker's own, beside those of the other workers.
        name: Of the folder; one name, one way to make it.
        make: Fills an empty folder. If it raises, nothing is kept, and whoever asks next makes it anew.
    """
    base = factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "once"
    shared.mkdir(exist_ok=True)
    folder, made = shared / name, shared / f"{name}.made"
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of one who failed
            folder.mkdir()
            make(folder)
            made.touch()
    return folder
