"""One silo's training in several processes, each on a device: who computes which sums, and in which order they add up.

    rank 0    this process: it has records, ledger, keys and law. It draws lots, makes views, adds sums up, adds noise,
              and steps. It computes the last of every few physical batches itself, whose rows are the longest
    rank k    is given parameters and one physical batch after another, and returns the sum of its clipped gradients

A physical batch is what it is in one process, cut from the same lot at the same shape, and is computed whole in one
process: the gradient of a record, and that of all of its views, is computed and clipped there as it is here
(`ClippedSum.summed`). Sums are put together here alone, in the order of batches, whoever computed them
(`ClippedSum.put`), which is what one process does. So:

Guarantee: the sum that `Ranks.of` returns is to the bit the one that `ClippedSum.of` returns, on devices that compute
alike; every bound of the one is the other's. Before any round is charged, the bound itself is measured in every
process, at the model received. That the processes compute alike is measured on made-up records (`Ranks.check_as_one`):
before the first round of these processes is charged, and before any later one of another pipeline, or of another number
of rows of a physical batch, than they were compared at; at the model received then, and not at each. Where one of them
differs, nothing is trained. Lots, views and noise come from this process's source alone, once, and no other
process is told how many records there are.

Not to the bit are masks of dropout: each process draws those of its own batches, from the operating system as this one
does. They are of one distribution and independent, which is what the guarantee of masks asks for.

| Edge case                                    | What happens                                                      |
|----------------------------------------------|-------------------------------------------------------------------|
| the lot is empty, or fits one physical batch | the other processes are asked for nothing                         |
| a process is killed, hangs or refuses        | all others end, nothing is returned and nothing is released       |
| a new process measures what is known here    | it is waited for as long as the measurement itself took here asks  |
| this process is killed                       | all others end                                                    |
| a process measures other rows of a batch     | `PrivacyError`: its device is another, and would compute otherwise |

Does NOT hide how long a lot takes, which hangs on how many physical batches it fills and on how many processes there
are. Does NOT go over a network (`fedmodel.learning.links`).

Shapes: N records, R of them in a physical batch, V rows of their views, P parameters.
"""

from __future__ import annotations

import logging
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedmodel import errors
from fedmodel.crypto import KEY_SIZE
from fedmodel.data.named import arrays, each
from fedmodel.errors import ConfigError, FedmodelError, PrivacyError
from fedmodel.kinds import bases, own_code
from fedmodel.kinds.layers import without_dropout
from fedmodel.kinds.shape import DataShape
from fedmodel.learning.gradients import ClippedSum
from fedmodel.learning.inputs import Inputs, made_up
from fedmodel.learning.links import MEETS_S, Meeting, Words
from fedmodel.system.nursery import Nursery, Process, heard_or_gone, wait_for_one

_AT_LEAST_S: Final = MEETS_S
_TIMES_AS_LONG: Final = 10  # as this process took for as much, besides
_NOTICED_S: Final = 1.0  # a process that is being ended has closed what it held before it is gone

log = logging.getLogger(__name__)

_nursery: Nursery | None = None
_ranks: Ranks | None = None


def prepare(work: Callable[[socket.socket], None]) -> None:
    """Make other processes possible from here on: before torch has computed anything in this one.

    Args:
        work: What each of them does with its end of the sockets (`fedmodel.learning.jobs._rank`).

    Raises:
        ConfigError: Where there is no Linux.
        OSError: When no process can be begun.
    """
    global _nursery
    close()
    _nursery = Nursery(work)


def ranks_of(processes: int) -> Ranks | None:
    """Return the processes that train for this silo besides this one, which stay between rounds; None for no others.

    Args:
        processes: How many there are, this one among them.

    Raises:
        ConfigError: When this process did not prepare for others.
        FedmodelError: When they cannot be begun.
    """
    global _ranks
    if _ranks is not None and (_ranks.count != processes or _ranks.is_ended):
        end()
    if processes == 1:
        return None
    if _nursery is None:
        raise ConfigError(
            f"silo.toml says processes = {processes}, and said 1 when this silo was started; start it again"
        )
    if _ranks is None:
        _ranks = Ranks(_nursery, processes)
    return _ranks


def close() -> None:
    """End all that `prepare` began, and what was begun from it."""
    global _nursery
    end()
    if _nursery is not None:
        _nursery.close()
    _nursery = None


def end() -> None:
    """End the other processes, where there are any; the next who asks for some gets new ones."""
    global _ranks
    if _ranks is not None:
        _ranks.close()
    _ranks = None


@dataclass(frozen=True)
class Pipeline:
    """What every process builds and measures for itself.

    Attributes:
        scenario: As JSON: model, losses, kind of gradients.
        event: Of one step, as JSON.
        device: Where the silo trains, as its law says it.
        most: How many rows of a physical batch fit in memory; None where the scenario says it.
    """

    scenario: str
    event: str
    device: str
    most: int | None


@dataclass(frozen=True)
class Masks:
    """Where a process draws masks of dropout from: as this one does, and not the same ones.

    Attributes:
        name: The source's.
        seed: The scenario's, which the operating system's source takes no notice of.
        silo: Whose.
        number: The round.
    """

    name: str
    seed: int
    silo: str
    number: int


class Ranks:
    """The processes that compute for this one.

    Args:
        nursery: Begins them.
        count: How many processes there are, this one among them.

    Raises:
        CryptoError: When somebody else connected to one of them.
        FedmodelError: When one could not be begun.
    """

    def __init__(self, nursery: Nursery, count: int) -> None:
        self.count, self.is_ended = count, False
        self._folder = TemporaryDirectory(prefix="fedmodel-ranks-")
        self._processes: list[Process] = []
        self._alike: set[tuple[Pipeline, int]] = set()
        self._meeting: Meeting | None = None
        with self._or_ended():
            self._processes += (nursery.process() for _ in range(1, count))
            self._words = [Words(one.end_here) for one in self._processes]
            secret = secrets.token_bytes(KEY_SIZE)
            for rank, words in enumerate(self._words, start=1):
                words.tell(
                    {"do": "meet", "folder": self._folder.name, "rank": rank, "ranks": count, "secret": secret.hex()}
                )
            self._meeting = Meeting(Path(self._folder.name), 0, count, secret)
        log.info("this silo trains in %d processes", count)

    def close(self) -> None:
        """End the other processes, whatever they are at."""
        self.is_ended = True
        while self._processes:
            self._processes.pop().end()
        if self._meeting is not None:
            self._meeting.close()
            self._meeting = None
        self._folder.cleanup()

    def measured(
        self, pipeline: Pipeline, model_P: NDArray[np.float32], own: Callable[[], int], took_s: Callable[[], float]
    ) -> int:
        """Return the rows of a physical batch, at which every process measured that the pipeline holds to the clip.

        Args:
            pipeline: What is built and measured.
            model_P: The model received.
            own: Measures in this process, meanwhile.
            took_s: Says after that how long the measurement itself took here, whenever that was: others may have it yet
                to do, though it is remembered here.

        Raises:
            PrivacyError: When one of them refuses, or they do not agree.
        """
        told = {"do": "measure", **asdict(pipeline), "own_code": own_code.opened_to(), "bases": bases.known()}
        with self._or_ended():
            self._tell_all(told, [np.ascontiguousarray(model_P, dtype=np.float32)])
            started = time.monotonic()
            rows = own()
            took = max(took_s(), time.monotonic() - started)
            found = [answer["rows"] for answer in self._hear_all(took)]
        if any(one != rows for one in found):
            raise PrivacyError(
                f"the processes of this silo measured {', '.join(map(str, [rows, *found]))} rows for a physical batch,"
                " where all need the same ones: their devices are not alike; say a device that they all can have, or"
                " processes = 1, in silo.toml"
            )
        return rows

    def begin(self, pipeline: Pipeline, masks: Masks | None, rows: int) -> None:
        """Have all processes be ready for steps.

        Args:
            pipeline: What was measured.
            masks: Where masks of dropout come from; None where there are to be none.
            rows: Of a physical batch.
        """
        with self._or_ended():
            told = {"do": "begin", **asdict(pipeline), "masks": None if masks is None else asdict(masks), "rows": rows}
            self._tell_all(told)
            self._hear_all(0.0)

    def check_as_one(self, pipeline: Pipeline, gradients: ClippedSum, shape: DataShape) -> None:
        """Refuse processes whose sum of made-up records is another than this one's alone.

        It is measured once for each pipeline and each number of rows, which are the shape that sums are computed at.

        Args:
            pipeline: What they were measured with.
            gradients: The same in this process, with the rows that were measured.
            shape: What records look like.

        Raises:
            PrivacyError: When a bit of it differs.
        """
        compared = pipeline, gradients.rows
        if compared in self._alike:
            return
        self.begin(pipeline, None, gradients.rows)
        device = gradients.parameters[0].device
        count = self.count * gradients.rows + 1  # a batch for each of them, and one that has a single record
        lot = np.arange(count)
        for own in gradients.shapes(shape):
            x_N, y_N = made_up(own, count, torch.Generator().manual_seed(0))
            x_N, y_N = each(x_N, lambda one: one.to(device)), y_N.to(device)
            with without_dropout(gradients.module):
                alone = gradients.of(x_N, y_N, lot, gradients.made_up_views, whole=True)
                together = self.of(gradients, x_N, y_N, lot, gradients.made_up_views, whole=True)
            if not all(torch.equal(one, other) for one, other in zip(alone, together, strict=True)):
                raise PrivacyError(
                    f"{self.count} processes sum up made-up records to another sum than one does: their devices do not"
                    " compute alike; say a device that they all can have, or processes = 1, in silo.toml"
                )
        self._alike.add(compared)

    def of(
        self,
        gradients: ClippedSum,
        x_N: Inputs,
        y_N: Tensor,
        lot: NDArray[np.intp],
        augment: Callable[[Inputs], Inputs] | None = None,
        *,
        whole: bool = False,
    ) -> list[Tensor]:
        """Return the clipped sum of a lot, to the bit as `gradients.of` does.

        Args:
            gradients: The pipeline in this process, at the parameters of this step.
            x_N: All the silo's records, on this process's device. Sensitive.
            y_N: Their targets. Sensitive.
            lot: Indices of the records drawn. Sensitive.
            augment: Makes the views of records.
            whole: Whether rows stay as long as they are, where there are several lengths.

        Raises:
            FedmodelError: When a process is gone, or refuses; the others have ended then.
        """
        with self._or_ended():
            gradients.begin()
            batches, are_told = gradients.batches(x_N, y_N, lot, augment, whole=whole), False
            while turn := [*islice(batches, self.count)]:
                if len(turn) > 1 and not are_told:
                    self._tell_parameters(gradients)
                    are_told = True
                self._take_turn(gradients, turn)
            return gradients.take()

    def _take_turn(self, gradients: ClippedSum, turn: Sequence[tuple[Inputs, Tensor]]) -> None:
        """Put up to a batch for each process to the sum, in the order of batches."""
        *told_on, own = turn  # lengths rise, so that no other process has longer rows than are timed here
        for words, (x_V, y_R) in zip(self._words, told_on, strict=False):
            named = isinstance(x_V, Mapping)
            told = {"do": "batch", "names": [*x_V] if named else None}
            words.tell(told, [one.cpu().numpy() for one in (*arrays(x_V), y_R)])
        started = time.monotonic()
        own_P = gradients.summed_apart(*own)
        took = time.monotonic() - started
        size = sum(parameter.numel() for parameter in gradients.parameters)
        for rank in range(1, len(turn)):
            self._hear(rank, took)
            sum_P = self._met.receive(rank, torch.empty(size, dtype=torch.float64))
            gradients.put(sum_P.to(gradients.parameters[0].device))
        gradients.put(own_P)

    def _tell_parameters(self, gradients: ClippedSum) -> None:
        """Give every process the parameters of this step, as they are."""
        values_P = torch.cat([one.detach().reshape(-1) for one in gradients.parameters]).cpu()
        self._tell_all({"do": "step"})
        for rank in range(1, self.count):
            self._met.send(rank, values_P)

    @property
    def _met(self) -> Meeting:
        if self._meeting is None:
            raise FedmodelError("the processes of this silo have ended")
        return self._meeting

    def _tell_all(self, said: Mapping[str, Any], values: Sequence[NDArray[Any]] = ()) -> None:
        for words in self._words:
            words.tell(said, values)

    def _hear_all(self, took_s: float) -> list[dict[str, Any]]:
        return [self._hear(rank, took_s) for rank in range(1, self.count)]

    def _hear(self, rank: int, took_s: float) -> dict[str, Any]:
        """Return what a process answers; raise as it did where it refuses, and at once where any of them is gone."""
        asked, patience_s = self._processes[rank - 1].end_here, _AT_LEAST_S + _TIMES_AS_LONG * took_s
        if not heard_or_gone(asked, self._processes, patience_s):
            raise FedmodelError(
                f"process {rank} of the {self.count} that train for this silo gave no answer in {patience_s:.0f} s, and"
                f" is waited for no longer: a minute, and {_TIMES_AS_LONG} times what this process took for as much;"
                " all have ended, and nothing of this is released"
            )
        answer, _ = self._words[rank - 1].hear(MEETS_S)
        if "refused" in answer:
            kind = getattr(errors, answer["refused"], FedmodelError)
            raise kind(f"process {rank} of this silo: {answer['said']}")
        return answer

    @contextmanager
    def _or_ended(self) -> Iterator[None]:
        """End all processes where something fails: what is under way between them is another's answer by then."""
        try:
            yield
        except (EOFError, OSError) as error:
            gone = gone_of(self._processes)
            self.close()
            who = f"process {' and '.join(map(str, gone))} ended" if gone else "one cannot be heard"
            why = ", as one does that the system kills for want of memory" if gone else ""
            raise FedmodelError(
                f"{who}, of the {self.count} that train for this silo{why}; all have ended, and nothing of this is"
                " released"
            ) from error
        except BaseException:
            self.close()
            raise


def gone_of(processes: Sequence[Process]) -> list[int]:
    """Return the ranks of those that have ended by themselves, the first of which is 1."""
    wait_for_one(processes, _NOTICED_S)
    return [rank for rank, one in enumerate(processes, start=1) if one.is_gone]
