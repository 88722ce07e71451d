"""The formats that a trained model is written in, each with how it is opened again.

| Format        | File                | Is opened by                                                               |
|---------------|---------------------|----------------------------------------------------------------------------|
| `safetensors` | `model.safetensors` | fedmodel; the very bytes that silos countersigned, and tensors to others   |
| `torch`       | `model.pt2`         | `torch.export.load`, with torch alone; it holds operations and no pickle   |
| `onnx`        | `model.onnx`        | any ONNX runtime                                                           |
| `peft`        | `adapter_model...`  | peft, on the base (`scenarios.models.peft_form`)                           |

A file of `torch` or `onnx` takes `features`, scaled as `model.json` says, float32 of shape `(N, *shape)` for any N from
1, and returns `probabilities`, float32 of shape `(N, classes)`: the sigmoid or softmax is in it. Of a model of numbers
it returns `values`, float32 in the label's own units, of shape `(N,)`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedmodel.learning.tasks import Objective
from fedmodel.system.durable import replace_file
from fedmodel.system.packages import missing
from fedmodel.system.quiet import quiet
from scenarios.models import peft_form
from scenarios.models.predict import scores_of
from scenarios.models.smaller import Int8Linear
from scenarios.models.trained import Trained, read_model

Scorer = Callable[[Any], NDArray[np.float32]]
"""From scaled records to the probability of each class, or to a number."""


@dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        file: What the file is called.
        write: Writes a model at a path.
        open: Opens that again, as whoever gets it does.
        right: What that has to answer, of the model and records.
        takes_texts: Whether it is of models of several arrays or of tokens, and not of one array of real numbers alone.
        takes_smaller: Whether it is of a model that was made smaller: it holds operations, and not the run's bytes.
    """

    file: str
    write: Callable[[Trained, Path], None]
    open: Callable[[Path], Scorer]
    right: Callable[[Trained, Any], NDArray[np.float32]] = scores_of
    takes_texts: bool = False
    takes_smaller: bool = False


class _Scored(nn.Module):
    """A model whose outputs are its answers: probabilities, or numbers."""

    def __init__(self, module: nn.Module, aim: Objective) -> None:
        super().__init__()
        self.module, self._aim = module, aim

    def forward(self, features: Tensor) -> Tensor:
        return self._aim.answers(self.module(features))


def _program(model: Trained) -> torch.export.ExportedProgram:
    """Return the model's operations, for any number of records."""
    scored = _Scored(model.module, model.description.aim).eval()
    example = (torch.zeros(2, *model.description.shape),)
    program = torch.export.export(scored, example, dynamic_shapes=({0: torch.export.Dim("N", min=1)},))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # which functions made it, and where they lie on this machine
    return program


def answered(model: Trained) -> str:
    """Return what a model's answers are called."""
    return "values" if model.description.task == "regression" else "probabilities"


def _write_safetensors(model: Trained, path: Path) -> None:
    replace_file(path, model.data)


def _open_safetensors(path: Path) -> Scorer:
    model = read_model(path)
    return lambda x_NF: scores_of(model, x_NF)


def _write_torch(model: Trained, path: Path) -> None:
    written = io.BytesIO()
    with quiet():
        torch.export.save(_program(model), written)
    replace_file(path, written.getvalue())


def _open_torch(path: Path) -> Scorer:
    with quiet():
        module = torch.export.load(path).module()

    def score(x_NF: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.no_grad():
            found: NDArray[np.float32] = module(torch.tensor(x_NF)).numpy()
        return found

    return score


def _write_onnx(model: Trained, path: Path) -> None:
    try:
        import onnx  # noqa: F401 - whoever exports is told what is missing, and not by a traceback
        import onnxscript  # noqa: F401
    except ImportError:
        raise missing("onnx or onnxscript", "writing ONNX", "export") from None
    with quiet():
        program = torch.onnx.export(
            _program(model),
            dynamo=True,
            verbose=False,
            input_names=["features"],
            output_names=[answered(model)],
            # Its optimiser would compute float32 weights from integers, and write those.
            optimize=not any(isinstance(layer, Int8Linear) for layer in model.module.modules()),
        )
        if program is None:
            raise RuntimeError("torch.onnx.export returned no program")
        written = program.model_proto
        for node in written.graph.node:  # by which layers it was made, which takes more than a small model does
            del node.metadata_props[:]
        replace_file(path, written.SerializeToString())


def _open_onnx(path: Path) -> Scorer:
    import onnx
    from onnx.reference import ReferenceEvaluator

    read = onnx.load_from_string(path.read_bytes())
    onnx.checker.check_model(read, full_check=True)
    evaluator = ReferenceEvaluator(read)
    names = [one.name for one in read.graph.output]

    def score(x_NF: NDArray[np.float32]) -> NDArray[np.float32]:
        (found,) = evaluator.run(names, {"features": x_NF})
        return np.asarray(found, dtype=np.float32)

    return score


FORMATS: Final[Mapping[str, Format]] = {
    "safetensors": Format("model.safetensors", _write_safetensors, _open_safetensors, takes_texts=True),
    "torch": Format("model.pt2", _write_torch, _open_torch, takes_smaller=True),
    "onnx": Format("model.onnx", _write_onnx, _open_onnx, takes_smaller=True),
    "peft": Format(peft_form.ADAPTERS, peft_form.write, peft_form.opened, peft_form.answers, takes_texts=True),
}
