"""A process that computes for a silo's training: all its life, from the first thing that it is asked for to the last.

It builds the pipeline and measures it as the process that asks does, on its own device, by the same code
(`fedmodel.learning.jobs._pipelines`), and is then given parameters and physical batches, and returns their sums. It
opens no kit, no ledger and no table, draws no lot, adds no noise, and knows of no record but those of the batches that
it is given. It ends when whoever asks it has ended.

Shapes: R records of a physical batch, V rows of their views, P parameters.
"""

from __future__ import annotations

import logging
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from fedmodel.config import scenario_from_json
from fedmodel.errors import DataError, FedmodelError
from fedmodel.kinds import bases, own_code
from fedmodel.kinds.layers import Dropout
from fedmodel.learning import vectors
from fedmodel.learning.devices import use_device
from fedmodel.learning.gradients import ClippedSum
from fedmodel.learning.inputs import Inputs
from fedmodel.learning.jobs import _pipelines
from fedmodel.learning.links import Meeting, Words
from fedmodel.learning.memory import said_if_it_runs_out
from fedmodel.privacy.mechanisms import event_from_json
from fedmodel.privacy.noise import source_of

Asked = dict[str, Any]


def work(end: socket.socket) -> None:
    """Do what is asked for until nobody asks any more.

    Args:
        end: Of the sockets by which it is asked.
    """
    logging.disable(logging.INFO)  # what is found out here, the process that asks finds out and logs too
    rank, words = _Rank(), Words(end)
    with suppress(EOFError, OSError):  # whoever asked is gone, or has other things to do than to wait for this
        while True:
            asked, values = words.hear()
            try:
                with said_if_it_runs_out(rank.most, DataError):
                    answer = rank.do(asked, values)
            except FedmodelError as error:
                words.tell({"refused": type(error).__name__, "said": str(error)})
            except ConnectionError:
                raise
            except Exception as error:  # whatever a model's own code raises
                words.tell({"refused": FedmodelError.__name__, "said": f"{type(error).__name__}: {error}"})
            else:
                if answer is not None:
                    words.tell(answer)
                rank.send()


class _Rank:
    """What a process knows."""

    most: int | str = "auto"  # `training.max_physical_batch`, once it is known
    _rank: int
    _meeting: Meeting
    _device: torch.device
    _gradients: ClippedSum
    _sum_P: Tensor | None = None

    def do(self, asked: Asked, values: list[NDArray[Any]]) -> Asked | None:
        """Do one thing, and return what is told of it; None where nothing is."""
        match asked["do"]:
            case "meet":
                self._rank = asked["rank"]
                secret = bytes.fromhex(asked["secret"])
                self._meeting = Meeting(Path(asked["folder"]), self._rank, asked["ranks"], secret)
                return None
            case "measure":
                return {"rows": self._measured(asked, values[0])}
            case "begin":
                self._begin(asked)
                return {}
            case "step":
                sizes = (parameter.numel() for parameter in self._gradients.parameters)
                vectors.put(self._gradients.module, self._meeting.receive(0, torch.empty(sum(sizes))))
                self._gradients.begin()  # the model is another than the one that a batch before left as it was
                return None
            case "batch":
                self._sum_P = self._summed(asked["names"], values).cpu()
                return {}
        raise FedmodelError(f"a process was asked to {asked['do']!r}, which it does not know")

    def send(self) -> None:
        """Send the sum that was computed last, once whoever asked knows that it comes."""
        if self._sum_P is not None:
            sum_P, self._sum_P = self._sum_P, None
            self._meeting.send(0, sum_P)

    def _measured(self, asked: Asked, model_P: NDArray[Any]) -> int:
        """Return the rows at which the pipeline was measured to hold to the clip here, at this model."""
        own_code.open_as(asked["own_code"])
        bases.lie_at(asked["bases"], Path("/"))  # which every one of these paths begins with
        scenario = scenario_from_json(asked["scenario"])
        self.most = scenario.training.max_physical_batch
        self._device = use_device(asked["device"], scenario.training.threads, self._rank)
        _pipelines.fits(asked["scenario"], self._device, asked["most"])
        return _pipelines.rows_at(asked["scenario"], event_from_json(asked["event"]), self._device, model_P)

    def _begin(self, asked: Asked) -> None:
        """Take the pipeline that was measured, and give it where masks come from."""
        event, masks = event_from_json(asked["event"]), asked["masks"]
        self._gradients = _pipelines.gradients_of(asked["scenario"], event, self._device)
        self._gradients.rows = asked["rows"]
        for layer in self._gradients.module.modules():
            if isinstance(layer, Dropout):
                layer.train(masks is not None)
                if masks is not None:
                    # Each process its own: a source from a seed would draw the same masks in all of them.
                    layer.source = source_of(
                        masks["name"], masks["seed"], masks["silo"], masks["number"], f"rank {self._rank}"
                    )
        self._gradients.begin()

    def _summed(self, names: list[str] | None, values: list[NDArray[Any]]) -> Tensor:
        """Return the sum of one physical batch."""
        *x, y_R = (torch.from_numpy(one).to(self._device) for one in values)
        x_V: Inputs = x[0] if names is None else dict(zip(names, x, strict=True))
        return self._gradients.summed_apart(x_V, y_R)
