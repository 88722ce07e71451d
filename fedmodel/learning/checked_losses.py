"""Losses and gradients on made-up records, before a model trains: one for each record, of that record alone, and whole.

`fedmodel.learning.refusals` says what is asked of a model and why.

Shapes: B batch, P parameters.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor, nn

from fedmodel.data.named import each
from fedmodel.errors import FedmodelError, PrivacyError
from fedmodel.kinds.layers import without_dropout
from fedmodel.learning.advice import FUNCTIONAL, ONE_BY_ONE, out_of_place, said, told
from fedmodel.learning.gradients import KINDS, ClippedSum
from fedmodel.learning.inputs import Inputs, called
from fedmodel.learning.precision import is_rounded
from fedmodel.learning.tasks import RecordLoss
from fedmodel.learning.tracing import NEAR, ROW, ROWS, Traced, accompanied, differ, tensors_in
from fedmodel.system.memory import ran_out

BOUNDED: Final = "bound what is divided by, and what a logarithm or a root is taken of"
_IN_PLACE: Final = "modified by an inplace operation"  # as torch says it
_UNIT: Final = 2.0**-60  # of a grid so fine that sums on it are gradients
_ROUNDED: Final = 1e-5  # of the largest gradient: what is left of one that cancels out, as of a bias under a norm
_BF16: Final = 2.0**-5  # in place of both, of values of eight bits


def check_losses(
    losses: RecordLoss, output: object, other: object, y_B: Tensor, others_B: Tensor, named: str = "training.loss"
) -> None:
    """Refuse losses that are not one for each record, or hang on other records or on when they are asked.

    They are called as `named`.

    Does NOT look at whether they couple records where a model's outputs are not one tensor: how those of a record could
    be put beside others' is not known then. The preflight measures that, without the loss's name.
    """
    loss_B, again_B = (_lost(losses, output, y_B) for _ in range(2))
    if not isinstance(loss_B, Tensor) or tuple(loss_B.shape) != (ROWS,):
        found = f"shape {tuple(loss_B.shape)}" if isinstance(loss_B, Tensor) else f"type {type(loss_B).__name__}"
        raise PrivacyError(
            f"{named} gave a loss of {found} for {ROWS} records, where each needs one of its own, ({ROWS},);"
            " leave out the mean or the sum over records (reduction='none')"
        )
    if bool(loss_B.isnan().any()):
        raise PrivacyError(f"{named} is NaN for a model's outputs of made-up records as any may be; {BOUNDED}")
    if differ(again_B, loss_B):
        raise PrivacyError(
            f"{named} gave other losses of the same records when it was asked again, so that it draws at random or"
            " keeps something from one call to the next; compute them of outputs and targets alone"
        )
    if isinstance(output, Tensor) and isinstance(other, Tensor):
        beside_B = _lost(losses, accompanied([output, other]), accompanied([y_B, others_B]))
        if differ(loss_B, beside_B, ROW):
            raise PrivacyError(
                f"{named} couples records: the loss of a record hangs on the others in the batch; compute it of the"
                " record's own output and target"
            )


def _lost(losses: RecordLoss, output: object, y_B: Tensor) -> Tensor:
    with torch.no_grad():
        try:
            return losses(output, y_B)
        except PrivacyError as error:  # of a loss of the user's own, which is named by then
            given = " and ".join(
                f"{what} of shape {tuple(one.shape)}, {str(one.dtype).removeprefix('torch.')},"
                for what, one in [*(("outputs", one) for one in tensors_in(output)), ("targets", y_B)]
            )
            raise PrivacyError(
                f"{error}; it was given {given} made up: where it takes others, give a function that brings them to"
                " these first, such as lambda output, target: loss(output[:, 0], target.float())"
            ) from None
        except FedmodelError:
            raise
        except Exception as error:
            if ran_out(error):  # which says nothing of the loss
                raise
            shapes = ", ".join(str(tuple(one.shape)) for one in tensors_in(output))
            raise PrivacyError(
                f"training.loss failed on outputs of shape {shapes} and targets of shape {tuple(y_B.shape)}:"
                f" {told(error)}"
            ) from None


def check_gradients(
    gradients: type[ClippedSum], module: nn.Module, losses: RecordLoss, passed: Traced, x_B: Inputs, y_B: Tensor
) -> None:
    """Refuse a model whose parameters get no gradient, or whose records' gradients are not computed or do not add up.

    Operations in place are harmless in many places, and refused where they are in the way of gradients.
    """
    named = {name: one for name, one in module.named_parameters() if one.requires_grad}
    whole = _batch_gradients(module, losses, passed, x_B, y_B, list(named.values()))
    wanted = {name: one for name, one in zip(named, whole, strict=True) if one is not None}
    unused = [name for name in named if name not in wanted]
    if unused:
        more = f" and {len(unused) - 1} more" if len(unused) > 1 else ""
        raise PrivacyError(
            f"the parameter {unused[0]!r}{more} gets no gradient from the loss; take it out of the model, or freeze it"
            " (requires_grad = False)"
        )
    for own, one in wanted.items():
        if not bool(torch.isfinite(one).all()):
            raise PrivacyError(
                f"the gradient of the parameter {own!r} is NaN or infinite for made-up records as any may be; in the"
                f" model or its loss {BOUNDED}"
            )
    instead = {KINDS["functional"]: f"; {ONE_BY_ONE}", KINDS["one-by-one"]: ""}.get(gradients, f"; {FUNCTIONAL}")
    try:
        summed = gradients(module, losses, max_grad_norm=math.inf, unit=_UNIT, rows=len(y_B))
        with without_dropout(module):
            sums_P = summed.flat(x_B, y_B)
    except PrivacyError as error:
        said_already = ONE_BY_ONE in str(error)  # where the kind knows better
        raise PrivacyError(f"{error}{'' if said_already else instead}") from None
    except Exception as error:
        if ran_out(error):  # which says nothing of the model
            raise
        if (name := passed.changed_in_place) is not None:
            raise _in_place(module, name) from None
        raise PrivacyError(f"records' gradients of the model cannot be computed ({told(error)}){instead}") from None
    near, rounded = (_BF16, _BF16) if is_rounded(module) else (NEAR, _ROUNDED)
    offset, largest = 0, max(float(one.abs().max()) for one in wanted.values())
    for name, one in wanted.items():
        apart = float((sums_P[offset : offset + one.numel()] - one.flatten()).abs().max())
        if not apart <= near * float(one.abs().max()) + rounded * largest:
            raise PrivacyError(
                f"records' gradients of the parameter {name!r} do not add up to the batch's: it is used outside its"
                f" own layer, where they are not seen; use it by calling its layer{instead}"
            )
        offset += one.numel()


def _batch_gradients(
    module: nn.Module, losses: RecordLoss, passed: Traced, x_B: Inputs, y_B: Tensor, parameters: list[nn.Parameter]
) -> tuple[Tensor | None, ...]:
    """Return the gradients of a batch's losses, added up, as torch has them; None of what is not in the loss."""
    try:
        loss = losses(called(module, each(x_B, torch.clone)), y_B).sum()
        return torch.autograd.grad(loss, parameters, allow_unused=True)
    except Exception as error:
        if ran_out(error):
            raise
        if _IN_PLACE in str(error):
            raise _in_place(module, passed.changed_in_place or "") from None
        raise PrivacyError(f"torch cannot differentiate the model's loss: {told(error)}") from None


def _in_place(module: nn.Module, name: str) -> PrivacyError:
    """Return the refusal of a layer, or of the model's own code, that is in the way of gradients."""
    return PrivacyError(
        f"{said(module, name)} changes in place what another layer made, or it itself, which gradients need;"
        f" {out_of_place(module.get_submodule(name))}"
    )
