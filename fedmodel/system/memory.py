"""How much memory this process could yet get of the machine's main memory, under the limit of its control group.

And whether an error says that memory ran out, whoever raised it: torch, NumPy or Python. Torch is not imported for it.
"""

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


def ran_out(error: BaseException) -> bool:
    """Tell whether an error says that memory ran out, of a device or of the machine.

    >>> ran_out(MemoryError()), ran_out(RuntimeError("sizes do not match"))
    (True, False)
    """
    if isinstance(error, MemoryError):
        return True
    # Torch's own error of a card is a RuntimeError, and of main memory it raises that one itself.
    of_torch = any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__)
    return isinstance(error, RuntimeError) and (of_torch or "can't allocate memory" in str(error))
