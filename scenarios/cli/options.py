"""Options and arguments that verbs of several nouns have in common, and what is checked of a person's words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedmodel.errors import ConfigError
from fedmodel.system.inert import inert

ScenarioName = Annotated[str, typer.Argument(help="A TOML file, or the name of a built-in scenario.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key, as in privacy.epsilon=2.")
]
PartyKit = Annotated[Path, typer.Argument(help="The party's kit, a folder of its own.")]
ModelPlace = Annotated[
    Path, typer.Argument(metavar="MODEL", help="A run's folder, or a .safetensors file with its model.json beside it.")
]
Identity = Annotated[Path | None, typer.Option(help="The age key file that opens a sealed model.")]
OwnCode = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Run the code that makes a model of one's own: the folder it lies in, or any, where it is installed.",
    ),
]
BaseFolder = Annotated[
    Path | None,
    typer.Option("--base", metavar="FOLDER", help="The base that the model was trained on, where it was on one."),
]
Separator = Annotated[str, typer.Option(help="Between the fields of a CSV: , ; | or \\t.")]
Decimal = Annotated[str, typer.Option(help="Before the fraction of a number in a CSV.")]
Encoding = Annotated[str, typer.Option(help="Of a CSV.")]
Yes = Annotated[list[str] | None, typer.Option(metavar="WORD", help="A word that stands for true in a boolean.")]
No = Annotated[list[str] | None, typer.Option(metavar="WORD", help="A word that stands for false in a boolean.")]
Ledger = Annotated[Path, typer.Argument(help="A silo's ledger, as ledgers/NAME.sqlite, or its folder.")]
KitOption = Annotated[
    Path | None, typer.Option("--kit", help="The silo's kit. Default: silos/NAME beside the ledger's folder.")
]


def let_own_code_in(folder: Path | None) -> None:
    """Open this process to a model's own code, where a person named the folder that it lies in.

    A model's description is a stranger's word as long as nobody looked at it: what it names is not run unasked.
    """
    if folder is not None:
        from fedmodel.kinds import own_code

        own_code.open_to_all(folder)


def said(words: str, option: str) -> str:
    """Refuse an empty answer where a person has to give one, and one that would not show as what it is."""
    if not words.strip():
        raise ConfigError(f"{option} is empty; what is entered into a ledger says something")
    if inert(words) != words:
        raise ConfigError(
            f"{option} has a character that acts or is not seen, and a ledger is read by people: {inert(words)}"
        )
    return words
