"""Imports without the collector of garbage, which would go over all that was imported, again and again, for nothing.

Torch alone leaves some million objects, of which none is garbage. The collector goes over all objects whenever they
have become a quarter more. That was a twelfth of a whole run's CPU time.

Python's standard library alone is imported here.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading() -> Iterator[None]:
    """Collect nothing meanwhile, and afterwards nothing of what is there then, garbage too.

    So it is for imports, early in a process; where it is later, as before a run's report is built, what the run left
    behind in cycles stays until the process ends. The collector is as it was afterwards, for all that comes later.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_on:
            gc.enable()
