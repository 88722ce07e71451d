"""The model on disk: whole or not at all.

A file is written beside its place, synced and renamed over it, so a crash leaves the old model or the new one. With
recipients it is an age file, and no plaintext of it is ever on disk; without, as in a simulation, it is readable.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import safetensors.torch
from torch import nn

from fedmodel.crypto.sealed import write_sealed
from fedmodel.system.durable import replace_file


def save_model(module: nn.Module, path: Path, about: dict[str, str], recipients: Sequence[str] = ()) -> None:
    """Write the model's tensors in safetensors form, each under every name that it has.

    The format refuses tensors that share memory, as tied parameters do and a buffer that is a part of another: each is
    written as a copy of its own, and they are one again in the model that the file is read into.

    Args:
        module: What to save.
        path: Where; replaced atomically.
        about: Public words to store with it, such as the scenario's name and the round.
        recipients: Who opens the file, age recipients; nobody has to where there are none.
    """
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in module.state_dict().items()}
    # One entry: safetensors writes several in random order, and equal models should be equal files.
    data = safetensors.torch.save(tensors, metadata={"fedmodel": json.dumps(about, sort_keys=True)})
    if recipients:
        write_sealed(path, data, recipients)
    else:
        replace_file(path, data)
