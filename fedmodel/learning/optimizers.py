"""The inner optimisers, and how their state crosses rounds when a scenario says that it may.

By default every round starts with a fresh optimiser. State that is kept is made of noised gradients alone, so keeping
it costs no privacy; a silo says when a round may begin from it.

FedProx (Li et al. 2020, equation 2) adds mu/2 times the squared distance from the model received to a silo's objective.
Its gradient, mu times the difference, is no record's: it follows from the model received, which is public, and from
where earlier noised gradients brought the parameters. So it is added after the noise (`hold_near`), not to the losses.

Guarantee: what is released of a lot is, to the bit, what would have been released at the same parameters without it,
and is charged the same; all else of a step is post-processing of what was released before (Dwork and Roth 2014,
proposition 2.1). Added to the losses instead, it would be clipped with every record's gradient, and pull less the more
records' gradients the clip shortens.

Order: noised gradient, then the proximal term, then the optimiser. So momentum, Adam's and Adagrad's averages hold the
term as they hold weight decay in torch's `SGD(weight_decay=...)` and `Adam`: a velocity carries pulls of earlier steps
on, and Adam and Adagrad divide the term by the size of what they have seen. Only plain SGD pulls by exactly
`learning_rate mu` of the way.

Optimisers are torch's own, with their own arithmetic and hooks, without what surrounds it for `torch.compile`: a silo
compiles no optimiser, and the first call of what surrounds it imports half a CPU second's worth of compiler.

Shapes: P parameters.
"""

from __future__ import annotations

from inspect import unwrap
from typing import Any, Final

import torch
from numpy.typing import NDArray
from torch import nn
from torch.optim import Optimizer

from fedmodel.config import TrainingConfig

_STATE: Final = "fedmodel.optimizer"


class _Eager(Optimizer):
    """What every optimiser of torch's has, as it stands beneath the decorators that are there for `torch.compile`."""

    add_param_group = unwrap(Optimizer.add_param_group)
    load_state_dict = unwrap(Optimizer.load_state_dict)
    state_dict = unwrap(Optimizer.state_dict)
    zero_grad = unwrap(Optimizer.zero_grad)


class _SGD(_Eager, torch.optim.SGD):
    step = torch.no_grad()(unwrap(torch.optim.SGD.step))  # the decorators switch gradients off, too


class _Adam(_Eager, torch.optim.Adam):
    step = torch.no_grad()(unwrap(torch.optim.Adam.step))


class _Adagrad(_Eager, torch.optim.Adagrad):
    step = torch.no_grad()(unwrap(torch.optim.Adagrad.step))


def build_optimizer(config: TrainingConfig, module: nn.Module, rate: float) -> Optimizer:
    """Return a fresh optimiser over the module's trainable parameters.

    Args:
        config: Which one, and its momentum.
        module: Whose.
        rate: The learning rate of the round (`TrainingConfig.rate`).
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    match config.optimizer:
        case "sgd":
            return _SGD(parameters, lr=rate, momentum=config.momentum)
        case "adam":
            return _Adam(parameters, lr=rate)
        case "adagrad":
            return _Adagrad(parameters, lr=rate)


def hold_near(optimizer: Optimizer, proximal: float) -> None:
    """Have each step from here on pull every parameter back to where it is now; with 0, nothing is done.

    Hooks on the optimiser that were there before, such as an audit's, see the gradient without it: what was released.

    Args:
        optimizer: Of a model that holds what it received.
        proximal: FedProx's mu.
    """
    if proximal == 0:
        return
    received = [(one, one.detach().clone()) for group in optimizer.param_groups for one in group["params"]]

    def pull(*_: Any) -> None:
        for parameter, received_P in received:
            if parameter.grad is not None:
                parameter.grad = parameter.grad + proximal * (parameter.detach() - received_P)

    optimizer.register_step_pre_hook(pull)


def keep_state(optimizer: Optimizer, carried: dict[str, dict[str, NDArray[Any]]]) -> None:
    """Put the optimiser's tensors into what is carried on, in place of what was there."""
    carried[_STATE] = {
        f"{index}.{name}": value.detach().cpu().numpy()
        for index, held in optimizer.state_dict()["state"].items()
        for name, value in held.items()
        if isinstance(value, torch.Tensor)
    }


def recall_state(optimizer: Optimizer, carried: dict[str, dict[str, NDArray[Any]]]) -> None:
    """Give the optimiser the tensors of the last round, if there are any."""
    if _STATE not in carried:
        return
    restored = optimizer.state_dict()
    for key, array in carried[_STATE].items():
        index, name = key.split(".", maxsplit=1)
        restored["state"].setdefault(int(index), {})[name] = torch.from_numpy(array.copy())
    optimizer.load_state_dict(restored)
