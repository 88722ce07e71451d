"""On which device a step makes its tensors, and what of them reaches the host, shown without a card.

Torch's device "meta" computes shapes and no values, and takes none from the host by itself: whatever a step makes
elsewhere than on the model's device is seen, and whatever it would read back fails.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fedmodel.kinds.layers import Dropout
from fedmodel.kinds.shape import DataShape
from fedmodel.learning.gradients import KINDS
from fedmodel.learning.models import build_model
from fedmodel.learning.precision import in_precision
from fedmodel.privacy.noise import SeededNoise
from tests.fedmodel.learning.test_dp_sgd import CNN, FLAT, IMAGES, MLP, make

META = torch.device("meta")
READS = ("aten::_local_scalar_dense", "aten::item", "aten::nonzero", "aten::equal", "aten::is_nonzero")
DROPOUT = MLP.model_copy(update={"dropout": 0.5})
LOT, ROWS = np.arange(19), 8
BATCHES = -(-len(LOT) // ROWS)


class Seen(TorchDispatchMode):
    """Notes what is made on the host, what is moved between devices, and what is read back from the model's.

    A single number on the host is none of it: optimisers count steps there, which no kernel waits for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.made: Counter[str] = Counter()
        self.moved: Counter[str] = Counter()
        self.read: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.name().partition(".")[0]
        given, found = (
            {one.device.type for one in tree_leaves(of) if isinstance(one, Tensor) and (one.dim() or one.is_meta)}
            for of in ((args, kwargs), result)
        )
        if given and found and given != found:
            self.moved[f"{'+'.join(sorted(given))} to {'+'.join(sorted(found))}"] += 1
        elif found - {"meta"}:
            self.made[name] += 1
        if name in READS and "meta" in given:
            self.read[name] += 1
        return result


def trained(module: nn.Module, shape: DataShape, name: str, optimizer: type[torch.optim.Optimizer]) -> Seen:
    """Return what two steps did, the first of which makes what an optimiser keeps."""
    sgd = make(module.to(META), gradients_kind=name, noise=SeededNoise(0), physical=ROWS, denominator=ROWS)
    sgd.optimizer = optimizer(sgd.gradients.parameters, lr=0.1)  # type: ignore[call-arg]
    for layer in module.modules():
        if isinstance(layer, Dropout):
            layer.source = SeededNoise(0)
    x_N = torch.empty((20, *shape.features), device=META)
    y_N = torch.empty(20, dtype=torch.long, device=META)
    sgd.step(x_N, y_N, LOT)
    with Seen() as seen:
        sgd.step(x_N, y_N, LOT)
    return seen


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(
    ("config", "shape", "masks"),
    [(MLP, FLAT, 0), (DROPOUT, FLAT, BATCHES), (CNN, IMAGES, 0)],
    ids=["mlp", "drop", "cnn"],
)
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adagrad])
def test_a_step_stays_on_the_models_device_and_reads_nothing_back(
    config: Any, shape: DataShape, masks: int, name: str, optimizer: type[torch.optim.Optimizer]
) -> None:
    """From the host come the lot, the noise and dropout's masks, each at once; nothing goes there."""
    seen = trained(build_model(config, shape, seed=1), shape, name, optimizer)
    if name == "one-by-one" and masks:  # which has a pass for each record
        masks = len(LOT)
    assert seen.read == {}
    assert seen.moved == {"cpu to meta": 2 + masks}
    assert set(seen.made) == {"aten::lift_fresh"}  # of arrays that are about to be moved
    assert seen.made.total() == 2 + masks


class Casting(TorchFunctionMode):
    """Rounds for linear layers and convolutions, as autocast does, which knows no device that has no values."""

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (functional.linear, functional.conv2d):
            args = [one.to(torch.bfloat16) if isinstance(one, Tensor) else one for one in args]
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["book-keeping", "hooks", "functional"])
@pytest.mark.parametrize(("config", "shape"), [(MLP, FLAT), (CNN, IMAGES)], ids=["mlp", "cnn"])
def test_a_step_in_bf16_stays_on_the_models_device_too(
    config: Any, shape: DataShape, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "autocast", Casting)
    rounded = in_precision(build_model(config, shape, seed=1), "bf16")
    outputs: set[torch.dtype] = set()
    for layer in rounded.modules():
        if isinstance(layer, nn.Linear):
            layer.register_forward_hook(lambda *given: outputs.add(given[2].dtype))
    seen = trained(rounded, shape, name, torch.optim.SGD)
    assert outputs == {torch.bfloat16}
    assert seen.read == {}
    assert seen.moved == {"cpu to meta": 2}
    assert set(seen.made) == {"aten::lift_fresh"}


def test_what_goes_to_the_host_is_seen() -> None:
    one = torch.empty(3, device=META)
    with Seen() as seen:
        torch.arange(3)
        with pytest.raises(NotImplementedError):
            one.cpu()
        with pytest.raises(RuntimeError):
            one.sum().item()
    assert seen.made == {"aten::arange": 1}
