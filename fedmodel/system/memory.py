"""How much memory this process could yet get of the machine's main memory, under the limit of its control group."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import psutil

_GROUP: Final = Path("/sys/fs/cgroup")  # as a container sees its own, in version 2 of control groups


def available(group: Path = _GROUP) -> int:
    """Return how many bytes are available, the machine's or what the process's control group leaves of its limit.

    Args:
        group: The folder in which Linux tells of the group; without one, or without a limit, only the machine counts.
    """
    free = int(psutil.virtual_memory().available)
    try:
        limit, used = ((group / name).read_text().strip() for name in ("memory.max", "memory.current"))
    except OSError:
        return free
    if not (limit.isdecimal() and used.isdecimal()):  # "max" is none
        return free
    return max(0, min(free, int(limit) - int(used)))
