"""Which jobs there are, by name, without torch: a silo joins a run, and refuses one, before it imports any of them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from fedmodel.errors import ConfigError
from fedmodel.system.kinds import kind_names, not_known

_PACKAGE: Final = "fedmodel.learning.jobs"


def check_jobs(names: Iterable[str]) -> None:
    """Refuse a name that is no job's.

    Raises:
        ConfigError: When there is no file of that name among the installed ones.
    """
    known = _installed()
    for name in names:
        if name not in known:
            raise ConfigError(not_known("job", name, known))


@lru_cache(maxsize=1)
def _installed() -> tuple[str, ...]:
    """Return the names of the jobs, as this process first found them."""
    return tuple(kind_names(_PACKAGE))
