"""The pipelines that this process built: a model, its losses, the clipped sum over them, and the rows it passed at.

A silo's requests, and silos alike in one process, share one model on a device, and what was measured of it. Measured is
what a record can move: once a process at the parameters that the model was built with and at hostile ones
(`fedmodel.learning.preflight`), and at each model that is received.

Guarantee: `rows_at` returns rows for this very scenario, event, model and wrappers, at which the clipped sum held to
the clip here; what it returns from before was measured of the same bits. Whatever could make it another forgets it:
code of the scenario's own (`forget_pipelines`), other rows that fit in memory (`fits`, `share`).

Does NOT put the measured parameters and rows in: whoever takes a pipeline does, since it may have trained in between.

Shapes: P parameters.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
import torch

from fedmodel.config import Scenario, scenario_from_json
from fedmodel.kinds.shape import DataShape
from fedmodel.learning import alike, choosing, vectors
from fedmodel.learning.alike import stand_in
from fedmodel.learning.devices import use_device
from fedmodel.learning.gradients import ClippedSum, physical_batch
from fedmodel.learning.jobs import Vector, Wrapper
from fedmodel.learning.lasting import Lasted
from fedmodel.learning.lengths import of_shape
from fedmodel.learning.memory import most_rows, one_pass
from fedmodel.learning.models import build_model, training_losses
from fedmodel.learning.pattern import forget_shapes
from fedmodel.learning.precision import check_precision, in_precision, tell_if_no_faster
from fedmodel.learning.preflight import check_received, preflight
from fedmodel.learning.ranks import end as end_ranks
from fedmodel.learning.refusals import check_model
from fedmodel.privacy import grid
from fedmodel.privacy.events import Event, clip_of
from fedmodel.privacy.normals import check_device

_KEPT: dict[torch.device, tuple[tuple[str, float, tuple[Wrapper, ...]], ClippedSum]] = {}
"""By device, the one model that this process has there with all that hangs on it, which a scenario's requests share."""

_MEASURED: dict[torch.device, tuple[tuple[str, Event, tuple[Wrapper, ...], bytes], int]] = {}
"""By device, the last model that was measured there, by its hash, and the rows at which it held to the clip: the check
before the charge, the training after it, and silos alike ask of one model."""

_FITTING: dict[tuple[str, torch.device, tuple[Wrapper, ...]], int] = {}
"""How many rows fit in memory, as it was found once, before anything was charged for the scenario here."""

_SHARING: dict[torch.device, int] = {}
"""By device, how many of a silo's processes train on it, where there are several: each takes its part of the memory."""

_LASTED = Lasted()
"""How long each part of a measurement really took, by scenario and device: a process that begins anew has it to do."""


def key_of(scenario: Scenario, event: Event) -> tuple[str, Event]:
    """Return what a pipeline hangs on: what was planned and what is charged, which differ in their steps, share one.

    So do runs that differ in nothing that decides of the model that is measured or of made-up records.
    """
    return stand_in(scenario), event.times(1)


def gradients_of(
    scenario_json: str,
    event: Event,
    device: torch.device,
    clip: float | None = None,
    wrappers: tuple[Wrapper, ...] = (),
) -> ClippedSum:
    """Return the clipped sum over this process's model of a scenario, every privacy figure of it from the event.

    The model is built once, whatever silos, rounds and events ask for it, and a baseline as the private run. Whoever
    takes it puts in the parameters and the source of dropout's masks, and the rows that were measured: it may have
    trained before.

    Args:
        scenario_json: Whose model, losses and kind of gradients.
        event: Of one step.
        device: Where the model is to be.
        clip: Infinity for a baseline that clips nothing; the event's where it is not said.
        wrappers: What the model is wrapped in.
    """
    clip = clip_of(event) if clip is None else clip
    key = (scenario_json, clip_of(event), wrappers)
    if device not in _KEPT or _KEPT[device][0] != key:
        _KEPT.pop(device, None)  # before another is built, so that two are never in memory
        with _LASTED.timed("built", scenario_json, device):
            _KEPT[device] = key, _built(scenario_json, event, device, clip, wrappers)
    scenario, gradients = scenario_from_json(scenario_json), _KEPT[device][1]
    said = scenario.training.max_physical_batch
    if said == "auto":
        probed = (scenario_json, device, wrappers)
        if probed not in _FITTING:
            with _LASTED.timed("rows", scenario_json, device):
                _FITTING[probed] = max(1, most_rows(gradients, scenario.data.shape) // _SHARING.get(device, 1))
        most = _FITTING[probed]  # of records with all their views
    else:
        most = max(1, said // _views(scenario))
    gradients.max_grad_norm, gradients.unit, gradients.rows = _figures(event, clip, most)
    return gradients


def rows_at(
    scenario_json: str, event: Event, device: torch.device, model_P: Vector, wrappers: tuple[Wrapper, ...] = ()
) -> int:
    """Return the rows of a physical batch at which the pipeline was measured to hold to the clip at this model.

    Args:
        scenario_json: Whose model, losses and kind of gradients.
        event: Of one step.
        device: Where the model is.
        model_P: The parameters.
        wrappers: What the model is wrapped in.

    Raises:
        PrivacyError: When it does not.
    """
    vector_P = np.ascontiguousarray(model_P, dtype=np.float32)
    key = (scenario_json, event, wrappers, hashlib.sha256(vector_P.data).digest())
    if device not in _MEASURED or _MEASURED[device][0] != key:
        _MEASURED[device] = key, _measured(scenario_json, event, device, vector_P, wrappers)
    return _MEASURED[device][1]


def most_rows_of(scenario_json: str, event: Event, device: torch.device) -> int:
    """Return how many rows of a physical batch fit in memory, where a scenario leaves it open ("auto")."""
    gradients_of(scenario_json, event, device)
    return _FITTING[scenario_json, device, ()]


def measuring_s(scenario_json: str, device: torch.device) -> float:
    """Return how long it takes at least in seconds to build a pipeline and to measure it at a model, as it did here."""
    return sum(_LASTED.seconds(what, scenario_json, device) for what in ("built", "rows", "preflight", "received"))


def fits(scenario_json: str, device: torch.device, most: int | None) -> None:
    """Know how many rows of a physical batch fit in memory, as the process that asks for it found; None: nothing is.

    Args:
        scenario_json: Of what is trained.
        device: Where.
        most: How many.
    """
    probed = (scenario_json, device, ())
    if most is not None and _FITTING.get(probed) != most:
        _forget_rows()
        _FITTING[probed] = most


def share(device: torch.device, processes: int) -> None:
    """Know how many of a silo's processes train on a device; where it is another number, look anew what fits there."""
    if _SHARING.get(device, 1) != processes and _FITTING:
        _forget_rows()
    _SHARING[device] = processes


def forget_pipelines() -> None:
    """Forget the models that this process built, where code that a scenario names may be another by now."""
    _preflight_once.cache_clear()
    _MEASURED.clear()
    alike.forget()
    choosing.forget()
    forget_shapes()
    _KEPT.clear()
    _FITTING.clear()
    _SHARING.clear()
    _LASTED.forget()
    end_ranks()


def _measured(
    scenario_json: str, event: Event, device: torch.device, vector_P: Vector, wrappers: tuple[Wrapper, ...]
) -> int:
    """Measure the pipeline at a model received."""
    _set_up_again(scenario_from_json(scenario_json), device)
    rows = _preflight_once(scenario_json, event, device, wrappers)
    gradients = gradients_of(scenario_json, event, device, wrappers=wrappers)
    gradients.rows = rows
    vectors.load(gradients.module, vector_P)
    with _LASTED.timed("received", scenario_json, device):
        return check_received(gradients, _shape(scenario_json), clip_of(event))


@lru_cache(maxsize=64)
def _preflight_once(scenario_json: str, event: Event, device: torch.device, wrappers: tuple[Wrapper, ...] = ()) -> int:
    """Measure the pipeline's sensitivity, once a process: neither round nor records change it."""
    check_device(device)
    scenario = scenario_from_json(scenario_json)
    check_precision(scenario.training.precision, device)
    check_model(scenario, device)
    _set_up_again(scenario, device)
    _KEPT.pop(device, None)  # measured at the parameters that it is built with, and not at those of a round
    gradients = gradients_of(scenario_json, event, device, wrappers=wrappers)
    with _LASTED.timed("preflight", scenario_json, device):
        rows = preflight(gradients, scenario.data.shape, clip_of(event))
    tell_if_no_faster(gradients.module, one_pass(gradients, scenario.data.shape, rows))
    return rows


def _forget_rows() -> None:
    """Forget how many rows fit in memory, and what was measured at them."""
    _preflight_once.cache_clear()
    _MEASURED.clear()
    _FITTING.clear()


def _shape(scenario_json: str) -> DataShape:
    return scenario_from_json(scenario_json).data.shape


def _figures(event: Event, clip: float, most: int) -> tuple[float, float, int]:
    """Return what of a clipped sum hangs on the event: the clip, the grid and the rows of a physical batch."""
    return clip, grid.fine(event.noise_multiplier * clip_of(event)), physical_batch(event.denominator, most)


def _views(scenario: Scenario) -> int:
    """Return how many views of each record there are."""
    return 1 if scenario.data.augment is None else scenario.data.augment.views


def _built(
    scenario_json: str, event: Event, device: torch.device, clip: float, wrappers: tuple[Wrapper, ...]
) -> ClippedSum:
    """Build the model and the clipped sum over it."""
    scenario = scenario_from_json(scenario_json)
    shape = scenario.data.shape
    module = in_precision(build_model(scenario.model, shape, seed=0), scenario.training.precision)
    for wrapper in wrappers:
        module = wrapper.module(module)
    module = module.to(device)
    losses = training_losses(scenario.training, shape, device)
    for wrapper in wrappers:
        losses = wrapper.losses(losses, clip_of(event))
    most = scenario.training.max_physical_batch
    clip, unit, rows = _figures(event, clip, 1 if most == "auto" else most)
    gradients = choosing.of_scenario(scenario, device)(module, losses, max_grad_norm=clip, unit=unit, rows=rows)
    gradients.views, gradients.lengths = _views(scenario), of_shape(scenario.model.cut_to, shape)
    _set_up_again(scenario, device)
    return gradients


def _set_up_again(scenario: Scenario, device: torch.device) -> None:
    """Set torch up anew, which code of the user's own may have done otherwise as it made or ran a model."""
    use_device(str(device), scenario.training.threads)
