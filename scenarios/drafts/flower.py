"""The file by which Flower's own command runs a draft: `flwr run .` in its folder (`scenarios.face.flower_app`)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

from fedmodel.errors import ConfigError

PROJECT: Final = "pyproject.toml"
COMPONENTS: Final = {"serverapp": "scenarios.face.flower_app:server", "clientapp": "scenarios.face.flower_app:client"}
RUN: Final = "flwr run {} --stream"
_LONGEST: Final = 32  # letters of a name, by Flower's rule; it begins with a letter, too


def project_text(name: str, folder: Path, scenario: Path) -> str:
    """Return what the file says.

    Args:
        name: Of the scenario.
        folder: Where paths of the scenario begin, said from the root.
        scenario: Its file, from there.

    Raises:
        ConfigError: When a path is of bytes that are no text.
    """
    plain = (name if name[0].isalpha() else f"study-{name}")[:_LONGEST].rstrip("-")
    return f"""# Made by `fedmodel new --flower`: `flwr run .` simulates the scenario beside this file.
# Its ledgers, model and report come into the folder runs beside it. docs/from-flower.md has more.

[project]
name = {_said(plain)}
version = "0.1.0"
description = "A federation that is simulated by fedmodel"
dependencies = []    # fedmodel is installed already, beside flwr

[tool.flwr.app]
publisher = "local"
fab-include = [{_said("/" + scenario.name)}]    # what Flower copies: no record, and no table

[tool.flwr.app.components]
serverapp = {_said(COMPONENTS["serverapp"])}
clientapp = {_said(COMPONENTS["clientapp"])}

[tool.flwr.app.config]
folder = {_said(os.fspath(folder))}    # where paths in the scenario begin: say it anew when you move all of it
scenario = {_said(os.fspath(scenario))}
set = ""             # as --set says: "rounds=3 privacy.epsilon=2.0"
device = "cpu"       # or "cuda", with --federation-config 'client-resources-num-gpus=0.1'
"""


def _said(text: str) -> str:
    """Return text as TOML, which has JSON's escapes but for those of pairs of surrogates, and refuses a bare delete."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(
            f"{text!r} is not UTF-8, in which Flower's command reads the path of a draft; rename the folder"
        ) from None
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
