"""Libraries that tell a person of others, which nothing here needs, kept from it while they are imported or used."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_LOUD: Final = ("torch", "torchao")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep torch and torchao from telling a person about libraries that no model here needs; errors are told."""
    logs = {name: logging.getLogger(name) for name in _LOUD}
    levels = {name: log.level for name, log in logs.items()}
    for log in logs.values():
        log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, log in logs.items():
            log.setLevel(levels[name])
