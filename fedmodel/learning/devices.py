"""Which device trains and with how many threads, set up so that a record's gradient hangs on no clock.

    cpu       the processor
    cuda      the cards of this machine: simulated silos in turn over all of them, a deployed silo on the first, and
              where it trains in several processes these in turn over all of them
    cuda:N    one card
    auto      "cuda" where there is a card, else "cpu"

What a device and a number of threads do to a record's gradient all the same is measured, and not read from names:
`fedmodel.learning.preflight` runs on the device and with the threads that train.

Guarantee: once `use_device` returns, torch is set up so, whatever was set before, by code of the user's own too:

| What is set                                  | Why                                                                |
|----------------------------------------------|--------------------------------------------------------------------|
| float32 is multiplied and convolved as such, | TF32 or bf16 inside of a float32 product would round companions    |
| on processors and cards                      | of a record, and the gradients of all, by what nobody asked for    |
| products of bf16 and float16 are added up in | a sum that is cut in pieces would be rounded where they meet, and  |
| float32 on cards                             | where that is hangs on the kernel                                  |
| cuDNN takes deterministic kernels, and none  | which one is faster just now hangs on a clock                      |
| by trial                                     |                                                                    |
| on cards, deterministic algorithms where     | a sum in the order of whoever comes first is another each time;    |
| torch has them                               | book-keeping computes some gradients twice and needs the same bits |

Does NOT refuse an algorithm that has no deterministic form: the measurement decides, which is of bits, and refuses a
model that does not repeat itself. Does NOT make a run repeat itself on another machine: kernels differ, and so does
`threads = "auto"`.
"""

from __future__ import annotations

import logging
import os
import warnings
from typing import Any, Final, Literal

import torch

from fedmodel.errors import ConfigError

log = logging.getLogger(__name__)

_BACKENDS: Final[Any] = torch.backends  # whose types lack some of these names
_FLOAT32: Final[tuple[Any, ...]] = (
    _BACKENDS,
    _BACKENDS.mkldnn.matmul,
    _BACKENDS.mkldnn.conv,
    _BACKENDS.mkldnn.rnn,
    _BACKENDS.cuda.matmul,
    _BACKENDS.cudnn,
    _BACKENDS.cudnn.conv,
    _BACKENDS.cudnn.rnn,
)
"""Where torch is told what float32 may be rounded to within a product."""


def resolved(said: str) -> str:
    """Return "cpu", "cuda" or "cuda:N", where "auto" is what there is, which is logged.

    Raises:
        ConfigError: When the card that is said is not there.
    """
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if said == "auto":
        said = "cuda" if cards else "cpu"
        names = ", ".join(torch.cuda.get_device_name(card) for card in range(cards))
        log.info("device auto: %s", f"cuda, on {names}" if cards else "cpu, since there is no CUDA device")
    if said.startswith("cuda") and not cards:
        raise ConfigError(f"device {said}: no CUDA device is available here; use cpu or auto")
    number = said.partition(":")[2]
    if number and int(number) >= cards:
        raise ConfigError(f"device {said}: this machine has CUDA devices cuda:0 to cuda:{cards - 1}")
    return said


def card_of(said: str, place: int, cards: int) -> str:
    """Return the card that one of several silos trains on.

    Args:
        said: "cpu", "cuda" or "cuda:N".
        place: The silo's number among those that share this machine.
        cards: How many there are; at least one where a card is said.

    >>> [card_of("cuda", place, 2) for place in range(3)], card_of("cuda:1", 0, 2), card_of("cpu", 5, 2)
    (['cuda:0', 'cuda:1', 'cuda:0'], 'cuda:1', 'cpu')
    """
    return f"cuda:{place % cards}" if said == "cuda" else said


def sharing(said: str, processes: int, device: torch.device) -> int:
    """Return how many of a silo's processes train on one device, which is where one of them does.

    Args:
        said: "auto", "cpu", "cuda" or "cuda:N".
        processes: How many there are.
        device: Theirs.

    >>> sharing("cpu", 4, torch.device("cpu"))
    4
    """
    if device.type == "cpu":
        return processes
    cards = torch.cuda.device_count()
    asked = "cuda" if said == "auto" else said
    return sum(card_of(asked, place, cards) == str(device) for place in range(processes))


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_of(said: int | Literal["auto"]) -> int:
    """Return how many threads train: at most one for each core.

    "auto" is what `OMP_NUM_THREADS` says, by which whoever starts several silos on one machine shares its cores out,
    and all cores where it says nothing.
    """
    if said == "auto":
        told = os.environ.get("OMP_NUM_THREADS", "")
        said = int(told) if told.isdecimal() and int(told) else cores()
    return max(1, min(said, cores()))


def use_device(said: str, threads: int | Literal["auto"] = 1, place: int = 0) -> torch.device:
    """Return the device, set up so that a record's gradient does not hang on what was fastest just now.

    Args:
        said: "auto", "cpu", "cuda" or "cuda:N".
        threads: How many train on a processor.
        place: The silo's number among those that share this machine, or the process's among those of one silo.

    Raises:
        ConfigError: When the device is not there.
    """
    torch.set_num_threads(threads_of(threads))
    _keep_whole()
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    said = "cpu" if said == "cpu" else resolved(said)
    device = torch.device(card_of(said, place, torch.cuda.device_count()) if said != "cpu" else said)
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts; it asks for it
        # A layer that has no deterministic kernel is left to the measurement, which is of bits and not of names.
        warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation")
        torch.use_deterministic_algorithms(True, warn_only=True)
    return device


def _keep_whole() -> None:
    """Have float32 be float32 within products, and products of fewer bits be added up in float32."""
    # By the names of before first, and by both: torch refuses to read a setting on which the two disagree.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    for backend in _FLOAT32:
        backend.fp32_precision = "ieee"
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_fp16_accumulation = False
