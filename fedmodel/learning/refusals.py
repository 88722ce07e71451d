"""What of a model cannot be private or cannot be trained, said by the layer's name and with what to put in its place.

A user's own model comes with whatever they had: batch normalisation, operations in place, torch's dropout, weights that
get no gradient. `check_model` runs it on made-up records and refuses what it finds, in one line, before anything is
written or charged. `fedmodel.fix(model)` (`fedmodel.learning.fixing`) mends much of it.

What holds of a model that passes, on the records tried and in the mode that it trains in:

| What is asked                                      | Why                                                             |
|----------------------------------------------------|-----------------------------------------------------------------|
| it takes records of the data's shape               | nothing could train                                             |
| an output for a record does not hang on companions | a clip of each record's gradient would bound nothing            |
| two passes on the same records give the same, also | what one record left behind would reach the others' gradients   |
| after others                                       |                                                                 |
| records are as they were after a pass              | the server's own would be other ones in each round              |
| no pass writes into a trainable parameter          | what it writes would be released without noise                  |
| nothing is drawn from torch's generator            | masks that can be guessed couple records                        |
| buffers and frozen parameters never change, and    | they are constants of the code, the same at every party, so     |
| are the same whatever the seed of a build          | that no record and no other party's choice is in them           |
| every trainable parameter gets a gradient          | it would be released without noise, or never move               |
| records' gradients add up to the batch's           | a parameter used outside its own layer is trained by half       |
| dropout is of what each record has for itself      | one mask of all records would change with the place of each     |
| a loss for each record, of that record alone       | as for outputs                                                  |
| a loss of the user's own is as it was after a call | what one record left there would reach the others' gradients    |
| it trains in bf16 where that is asked for, and its | nothing could train, or not as is told                          |
| records' gradients add up in it                    |                                                                 |

Shared parameters are taken: a record's gradient is the sum over all uses, and is clipped once.

Does NOT bound what a record can do: `fedmodel.learning.preflight` measures that, of every pipeline, and would refuse
most of this too, without the name of a layer. A model that was built to recognise made-up records would pass both.

Shapes: B batch, P parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from fedmodel.config import Scenario
from fedmodel.data.named import each, together
from fedmodel.errors import ConfigError, PrivacyError
from fedmodel.kinds.layers import Dropout, without_dropout
from fedmodel.kinds.models.own import OwnConfig
from fedmodel.kinds.own_code import resolve
from fedmodel.kinds.shape import DataShape
from fedmodel.learning.advice import advice, out_of_place, said, told
from fedmodel.learning.checked_losses import BOUNDED, check_gradients, check_losses
from fedmodel.learning.choosing import AUTO, check_kind, chosen, move_away
from fedmodel.learning.gradients import ClippedSum, kind
from fedmodel.learning.inputs import Inputs, ended, made_up
from fedmodel.learning.keeping import Kept
from fedmodel.learning.models import build_model, training_losses
from fedmodel.learning.states import State, changed, state_of
from fedmodel.learning.tasks import RecordLoss, task_of
from fedmodel.learning.tasks._own import KEY, is_own
from fedmodel.learning.tasks._positions import Positions
from fedmodel.learning.tracing import ROW, ROWS, Traced, accompanied, differ, parted, tensors_in, trace
from fedmodel.system.memory import ran_out

_OF_REAL: Final = (nn.Linear, nn.Bilinear, nn.Conv1d, nn.Conv2d, nn.Conv3d)  # layers that multiply what they are given


def check_model(scenario: Scenario, device: torch.device) -> None:
    """Refuse a scenario's model that cannot be private or cannot be trained. Made-up records are all that it is given.

    Args:
        scenario: Says the model, the losses, the data's shape and the kind of gradients.
        device: Where the model will train.

    Raises:
        ConfigError: When memory runs out.
        PrivacyError: With the layer or the parameter by name, and what to put in its place.
    """
    shape = scenario.data.shape

    def build(seed: int) -> nn.Module:
        return build_model(scenario.model, shape, seed).to(device)

    losses = training_losses(scenario.training, shape, device)
    loss = scenario.training.loss if is_own(scenario.training.loss) else None
    try:
        named = scenario.training.gradients
        gradients = None if named == AUTO else kind(named)
        check_module(build, losses, shape, gradients, loss)
        if (precision := scenario.training.precision) != "float32":
            found = gradients or chosen(build, losses, shape, precision).of
            check_kind(found, build, losses, shape, precision)
    except PrivacyError as error:
        if not isinstance(scenario.model, OwnConfig) or str(error).startswith(KEY):
            raise
        raise PrivacyError(f"model.use = {scenario.model.use!r}: {error}") from None
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
        raise ConfigError(
            f"memory ran out on {device} at {ROWS} made-up records, which no training.max_physical_batch makes fewer;"
            " take a smaller model, end other programs, or train on another device"
        ) from None


def check_module(
    build: Callable[[int], nn.Module],
    losses: RecordLoss,
    shape: DataShape,
    gradients: type[ClippedSum] | None,
    own_loss: str | None = None,
) -> None:
    """Refuse a model that cannot be private or cannot be trained.

    Args:
        build: Makes the model anew, from a seed.
        losses: Of each record.
        shape: What records look like.
        gradients: The kind by which it will train; None for the first that computes its gradients.
        own_loss: The name of the losses where they are the user's own, which may want outputs of any shape.

    Raises:
        PrivacyError: As `check_model`.
    """
    module = build(0).train()
    _check_parameters(module)
    constants = {name: value.detach().clone() for name, value in _constants(module)}
    move_away(module)
    generator, device = torch.Generator().manual_seed(0), next(module.parameters()).device
    (x_B, y_B), (others_B, theirs_B) = [
        (each(x, lambda one: one.to(device)), y.to(device))
        for x, y in (made_up(shape, ROWS, generator), made_up(shape, ROWS, generator))
    ]
    with without_dropout(module):
        passed = _check_passes(module, x_B, others_B)
        _check_history(build(0).train(), module, passed, x_B, others_B)
        all_B = torch.ones(ROWS, dtype=torch.bool)
        short_B = each(ended(each(x_B, Tensor.cpu), all_B, generator), lambda one: one.to(device))
        _check_apart(module, _passed(module, short_B), short_B, others_B)
        _check_masks(module, passed, shape)
        if constants:
            _check_constants(constants, build(1))
        _check_output(passed.output, None if own_loss else shape)
        _check_numbers(module, passed)
        named = f"{KEY} = {own_loss!r}" if own_loss else KEY
        with _as_it_was(own_loss):
            check_losses(losses, passed.output, _passed(module, others_B).output, y_B, theirs_B, named)
            check_gradients(gradients or chosen(build, losses, shape).of, module, losses, passed, x_B, y_B)
    for name, value in _constants(module):
        _check_kept(module, name, constants[name], value)


@contextmanager
def _as_it_was(own_loss: str | None) -> Iterator[None]:
    """Refuse a loss of the user's own that made-up records change: it is not put back between records, as a model is.

    What else is refused meanwhile came of that, in words that do not say so.
    """
    thing = None if own_loss is None else resolve(own_loss, KEY)
    before = state_of(thing)
    try:
        yield
    except PrivacyError:
        _check_same(own_loss, before, thing)
        raise
    _check_same(own_loss, before, thing)


def _check_same(own_loss: str | None, before: State, thing: object) -> None:
    """Refuse a loss of the user's own that holds something else by now."""
    if (place := changed(before, state_of(thing))) is not None:
        raise PrivacyError(
            f"{KEY} = {own_loss!r} keeps {place!r} and changes it as it is called, so that one record would reach the"
            " losses of others; compute each loss of outputs and targets alone, and keep what stays the same"
        ) from None


def _check_parameters(module: nn.Module) -> None:
    """Refuse parameters that cannot be trained: none, or of another type; and torch's dropout."""
    named = dict(module.named_parameters())
    for name, parameter in named.items():
        if parameter.requires_grad and parameter.dtype != torch.float32:
            found = str(parameter.dtype).removeprefix("torch.")
            raise PrivacyError(
                f"the parameter {name!r} is {found}, and the bound of a gradient's norm is for float32;"
                " call .float() on the model"
            )
    if not any(parameter.requires_grad for parameter in named.values()):
        raise PrivacyError("no parameter of the model is trainable, so that there is nothing to learn")
    for name, layer in module.named_modules():
        if isinstance(layer, _DropoutNd) and layer.p > 0:
            raise PrivacyError(
                f"{said(module, name)} takes its masks from torch's generator, which can be guessed"
                f"{advice(module, name, 'leave it out')}"
            )


def _constants(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield what is in a model beside its trainable parameters: buffers, and parameters that are frozen."""
    yield from module.named_buffers()
    yield from ((name, one) for name, one in module.named_parameters() if not one.requires_grad)


def _check_constants(constants: dict[str, Tensor], again: nn.Module) -> None:
    """Refuse buffers and frozen parameters that are random: each party would have others."""
    for name, value in _constants(again):
        if name not in constants or not torch.equal(value, constants[name]):
            what = "buffer" if name in dict(again.named_buffers()) else "frozen parameter"
            raise PrivacyError(
                f"the {what} {name!r} hangs on the seed that the model is built with, and parties use different ones;"
                " give it the same values at every build, or let it train"
            )


def _check_kept(module: nn.Module, name: str, before: Tensor, after: Tensor) -> None:
    """Refuse a buffer or a frozen parameter that passes changed."""
    if not torch.equal(before, after):
        _refuse_change(module, name)


def _refuse_change(module: nn.Module, name: str) -> None:
    """Refuse a model of which a pass changed this parameter or buffer."""
    layer = name.rpartition(".")[0]
    trained = name in {trained for trained, one in module.named_parameters() if one.requires_grad}
    if trained:
        how, instead = f"writes into the parameter {name!r}", "compute what is wanted there without changing it"
    else:
        how = f"keeps {name!r} outside the trained parameters and changes it"
        instead = "keep nothing there that records change"
    raise PrivacyError(
        f"{said(module, layer)} {how} as records pass, where no noise is added{advice(module, layer, instead)}"
    )


def _check_passes(module: nn.Module, x_B: Inputs, others_B: Inputs) -> Traced:
    """Refuse a model that fails on records, keeps something of them, is random, or couples them; return a pass."""
    first = _passed(module, x_B)
    if (changing := first.input_changed_in) is not None:
        raise PrivacyError(
            f"{said(module, changing)} changes the records that the model is given in place, so that whoever uses them"
            f" again has other ones; {out_of_place(module.get_submodule(changing))}"
        )
    if (kept := _parted(first, _passed(module, x_B))) is not None:
        raise PrivacyError(
            f"{said(module, kept)} keeps something from one pass to the next: the same records gave another output"
            " when they were asked again; compute it anew from each record"
        )
    if (drawn := _parted(first, _passed(module, x_B, seed=1))) is not None:
        other = "take dropout from fedmodel.kinds.layers.Dropout, and draw nothing else"
        raise PrivacyError(
            f"{said(module, drawn)} draws from torch's generator, which can be guessed{advice(module, drawn, other)}"
        )
    _check_apart(module, first, x_B, others_B)
    return first


def _check_history(again: nn.Module, module: nn.Module, first: Traced, x_B: Inputs, others_B: Inputs) -> None:
    """Refuse a model of which the output hangs on what it was given before, whatever it keeps that in.

    Args:
        again: The model, built anew; it is given other records first.
        module: The model.
        first: Its first pass of all, on `x_B`.
        x_B: Records.
        others_B: Others.
    """
    held = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    with torch.no_grad():
        for name, one in (*again.named_parameters(), *again.named_buffers()):
            one.copy_(held[name])
    with without_dropout(again):
        _passed(again, others_B)
        if (kept := _parted(first, _passed(again, x_B))) is not None:
            raise PrivacyError(
                f"{said(module, kept)} keeps something from one pass to the next: the same records gave another output"
                " after others had been there; compute it anew from each record"
            )


def _check_apart(module: nn.Module, first: Traced, x_B: Inputs, others_B: Inputs) -> None:
    """Refuse a model of which the output for a record, in a pass, is another where others are beside it."""
    beside_B = together([x_B, others_B], accompanied)
    if (coupled := _parted(first, _passed(module, beside_B), ROW)) is not None:
        raise PrivacyError(
            f"{said(module, coupled)} couples records: what it makes of a record hangs on the others in the batch"
            f"{advice(module, coupled, 'compute each record by itself')}"
        )


def _check_masks(module: nn.Module, passed: Traced, shape: DataShape) -> None:
    """Refuse dropout of what records share, such as a table of positions: one mask would be that of many records."""
    layers = {name for name, layer in module.named_modules() if isinstance(layer, Dropout) and layer.rate > 0}
    if not layers:
        return
    more_B, _ = made_up(shape, 2 * ROWS, torch.Generator().manual_seed(0))
    wider = _passed(module, each(more_B, lambda one: one.to(next(module.parameters()).device)))
    for few, many in zip(passed.passed, wider.passed, strict=False):
        if few.layer in layers and [2 * one.numel() for one in few.values] != [one.numel() for one in many.values]:
            raise PrivacyError(
                f"{said(module, few.layer)} drops parts of what records share, so that one mask is that of all in the"
                " batch; drop them from what each record has, after the two are added"
            )


def _passed(module: nn.Module, x_B: Inputs, seed: int = 0) -> Traced:
    """Run a model once, and refuse one that fails, or that writes into its parameters or buffers."""
    kept = Kept(module)
    traced = trace(module, x_B, seed)
    if traced.failed is not None:
        if ran_out(traced.failed):  # which says nothing of the model
            raise traced.failed
        shapes = each(x_B, lambda one: tuple(one.shape))
        if isinstance(module.get_submodule(traced.failed_in), _OF_REAL) and (whole := _whole(x_B)) is not None:
            raise PrivacyError(
                f"{said(module, traced.failed_in)} takes real numbers, and {whole} of whole numbers; put nn.Embedding"
                " before it where they stand for words or codes, or .float() where they are amounts"
            )
        raise PrivacyError(
            f"{said(module, traced.failed_in)} failed on {ROWS} made-up records of the data's shape, {shapes}:"
            f" {told(traced.failed)}"
        )
    if (changed := kept.changed()) is not None:
        _refuse_change(module, changed)
    return traced


def _whole(x_B: Inputs) -> str | None:
    """Say which arrays of records are of whole numbers, as the begin of a sentence; None where none is."""
    if isinstance(x_B, Tensor):
        return None if x_B.is_floating_point() else "records are"
    names = [name for name, one in x_B.items() if not one.is_floating_point()]
    return f"{' and '.join(names)} of a record {'is' if len(names) == 1 else 'are'}" if names else None


def _parted(one: Traced, other: Traced, row: int | None = None) -> str | None:
    """Return the layer in which two passes part, or a record's part of them; None where they end in the same."""
    firsts, seconds = list(tensors_in(one.output)), list(tensors_in(other.output))
    if len(firsts) == len(seconds) and not any(differ(a, b, row) for a, b in zip(firsts, seconds, strict=True)):
        return None
    return parted(one, other, row)


def _check_output(output: object, shape: DataShape | None) -> None:
    """Refuse outputs that are no row for each record, or not as many as the task asks for, where it is known."""
    if not isinstance(output, Tensor):
        raise PrivacyError(f"the model returned a {type(output).__name__}; return one tensor, a row for each record")
    found = tuple(output.shape)
    if not found or found[0] != ROWS:
        wanted = f"({ROWS}, ...), a row for each record"
    elif shape is None or found == (sizes := (ROWS, *_positions(shape), shape.outputs)):
        return
    elif shape.task == "classification" and shape.classes == 2:
        if found == (ROWS, 2):
            return
        wanted = f"{sizes}, one logit, of the second class, or one for each"
    else:
        wanted = f"{sizes}, as {shape.task} asks for"
        if shape.task == "classification" and not shape.labels:
            wanted = (
                f"{sizes}, as {shape.classes} classes ask for. So many data.classes says or, where it does not, the"
                " largest label of the records; if the model is right, some label is out of place"
            )
    raise PrivacyError(f"the model returned outputs of shape {found} for {ROWS} records; wanted is {wanted}")


def _check_numbers(module: nn.Module, passed: Traced) -> None:
    """Refuse outputs that are no numbers: every check after them would say something else of it."""
    if any(bool(one.isnan().any()) for one in tensors_in(passed.output)):
        first = next(one.by for one in passed.passed if any(bool(value.isnan().any()) for value in one.values))
        raise PrivacyError(
            f"{said(module, first)} makes NaN of made-up records as any may be, normal of mean 0 and deviation 1 where"
            f" they are real numbers; {BOUNDED}"
        )


def _positions(shape: DataShape) -> tuple[int, ...]:
    """Return how many positions a record has outputs for, where its task is on sequences."""
    return shape.targets.size if isinstance(task_of(shape), Positions) else ()
