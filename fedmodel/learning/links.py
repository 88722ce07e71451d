"""What passes between the process that trains for a silo and one that computes for it, and how each knows the other.

    a pair of sockets   what is asked for and answered, records and targets: words in JSON, then arrays as they lie in
                        memory. It was there before the process was, and has no name (`fedmodel.system.nursery`)
    gloo                parameters to a process, sums of physical batches back, by torch.distributed

Gloo listens on TCP ports of this machine's loopback, which any account on it can connect to. So each side shows the
other, before anything else passes, a proof made of a secret that came by the sockets. Guarantee: whoever has not got
that secret is told nothing and is believed nothing. A port is connected to by the side that looked it up in a folder of
this account's alone, and whoever else connects to it has no proof to show: nobody stands between the two, since
nobody else listens where they connect. Other accounts can keep the two from meeting; then there is no training.

Nothing is encrypted, so all of it stays on one machine: what passes on its loopback is read by its administrator alone,
who could read the processes themselves.

Shapes: P parameters.
"""

from __future__ import annotations

import hmac
import json
import math
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from fedmodel.crypto import digest
from fedmodel.errors import CryptoError

LOOPBACK: Final = "127.0.0.1"
MEETS_S: Final = 60.0
"""For how long one side waits for the other where both are at it."""
_PROOF: Final = b"fedmodel/v1/rank"
_LENGTH_SIZE: Final = 8
_DIST: Final[Any] = dist  # whose types lack some of these names


class Words:
    """One end of a pair of sockets.

    Args:
        end: The end.
    """

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def tell(self, said: Mapping[str, Any], arrays: Sequence[NDArray[Any]] = ()) -> None:
        """Send words, and arrays with them.

        Raises:
            OSError: When the other end is gone, or takes nothing any more.
        """
        shapes = [(one.dtype.str, one.shape) for one in arrays]
        header = json.dumps({"said": said, "arrays": shapes}).encode()
        self._end.settimeout(MEETS_S)
        self._end.sendall(len(header).to_bytes(_LENGTH_SIZE, "big") + header)
        for one in arrays:
            self._end.sendall(np.ascontiguousarray(one).reshape(-1).view(np.uint8).data)

    def hear(self, patience_s: float | None = None) -> tuple[dict[str, Any], list[NDArray[Any]]]:
        """Return what the other end tells next.

        Args:
            patience_s: For how long to wait for it to begin; None for ever.

        Raises:
            EOFError: When the other end is gone.
            OSError: When it tells nothing, or not all of it.
        """
        self._end.settimeout(patience_s)
        length = self._taken(_LENGTH_SIZE)
        self._end.settimeout(MEETS_S)
        header = json.loads(self._taken(int.from_bytes(length, "big")))
        arrays = []
        for kind, shape in header["arrays"]:
            size = math.prod(shape) * np.dtype(kind).itemsize
            arrays.append(np.frombuffer(self._taken(size), dtype=kind).reshape(shape))
        return header["said"], arrays

    def _taken(self, size: int) -> bytearray:
        """Return so many bytes."""
        taken = bytearray(size)
        left = memoryview(taken)
        while left:
            count = self._end.recv_into(left)
            if not count:
                raise EOFError("the other end is gone")
            left = left[count:]
        return taken


class Meeting:
    """The processes of one silo, met over gloo.

    Args:
        folder: Of this account alone, in which they find each other.
        rank: This one's number; the one that asks is 0.
        ranks: How many there are.
        secret: 32 bytes that they alone have.

    Raises:
        CryptoError: When somebody connected who does not have the secret.
        ConnectionError: When one does not come, or is gone.
    """

    def __init__(self, folder: Path, rank: int, ranks: int, secret: bytes) -> None:
        store = _DIST.FileStore(str(folder / "met"), ranks)
        store.set_timeout(timedelta(seconds=MEETS_S))
        options = _DIST.ProcessGroupGloo._Options()  # noqa: SLF001 - else it listens on whatever the machine is called
        options._devices = [_DIST.ProcessGroupGloo.create_device(hostname=LOOPBACK)]  # noqa: SLF001
        options._timeout = timedelta(seconds=MEETS_S)  # noqa: SLF001
        with _lost():
            self._group = _DIST.ProcessGroupGloo(store, rank, ranks, options)
        self._rank, self._passed = rank, dict.fromkeys(range(ranks), 0)
        for other in range(1, ranks) if rank == 0 else (0,):
            self._prove(other, secret)

    def _prove(self, other: int, secret: bytes) -> None:
        """Show another the secret's proof, and look at its own. Each way has a proof of its own, so none is echoed."""

        def proof(one: int, to: int) -> bytes:
            return digest(_PROOF, secret, one.to_bytes(4, "big"), to.to_bytes(4, "big"))

        own, shown = (
            torch.frombuffer(bytearray(one), dtype=torch.uint8) for one in (proof(self._rank, other), bytes(32))
        )
        with _lost():  # both at once: a send is over when the other side has begun to receive
            number = self._next(other)
            under_way = self._group.recv([shown], other, number), self._group.send([own], other, number)
            for one in under_way:
                one.wait()
        if not hmac.compare_digest(bytes(shown.tolist()), proof(other, self._rank)):
            raise CryptoError(
                "somebody else connected to a process of this silo on this machine, and was told nothing; look at which"
                " accounts it has, and start this silo again"
            )

    def close(self) -> None:
        """Leave; nothing can be sent or received any more.

        It is done here, and not whenever this is forgotten: a fork that forgot it would wait for threads of gloo's,
        which no fork has.
        """
        del self._group

    def send(self, other: int, values: Tensor) -> None:
        """Send a tensor that lies on the processor.

        Raises:
            ConnectionError: When the other is gone, or takes nothing.
        """
        with _lost():
            self._group.send([values], other, self._next(other)).wait()

    def receive(self, other: int, into: Tensor) -> Tensor:
        """Return a tensor of the same shape and type as the one given, which is written into.

        Raises:
            ConnectionError: When the other is gone, or sends nothing.
        """
        with _lost():
            self._group.recv([into], other, self._next(other)).wait()
        return into

    def _next(self, other: int) -> int:
        """Return the number of what passes next between the two, which both count."""
        self._passed[other] += 1
        return self._passed[other]


@contextmanager
def _lost() -> Iterator[None]:
    """Tell what gloo could not do from what a model's own code could not."""
    try:
        yield
    except RuntimeError as error:
        raise ConnectionError(str(error)) from error
