"""The verbs of a federation's administrator: `provision`, and `authority add|rotate|renew|revoke|show`.

Thin: `fedmodel.provision.authority` does it all. What is printed holds no secret.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.table import Table

from fedmodel.crypto.openers import ask_opener
from fedmodel.system.counts import counted
from scenarios.cli.printing import Json, answer, err, out
from scenarios.cli.unlocking import KeyFile, PassphraseFile, passphrases_of, typed, typed_twice
from scenarios.cli.verbs import Verb

if TYPE_CHECKING:
    from fedmodel.crypto.sealed import Opener
    from fedmodel.provision.authority import Change

authority_app = typer.Typer(
    help="Add, rotate, renew and revoke parties of a federation that is deployed.", no_args_is_help=True
)

Root = Annotated[Path, typer.Argument(help="The folder that `fedmodel provision` made, with authority/ in it.")]
Name = Annotated[str, typer.Argument(help='A silo\'s name, or "server".')]
NewPassphrases = Annotated[
    Path | None,
    typer.Option(
        "--new-passphrases",
        help='A TOML file (mode 0600), NAME = "passphrase" a line, for the new keys. Default: they are asked for.',
    ),
]


def provision(
    federation: Annotated[Path, typer.Argument(help="federation.toml: who takes part, where the server is.")],
    out_folder: Annotated[Path, typer.Option("--out", help="A new folder, or an empty one.")],
    passphrase_file: Annotated[
        Path | None,
        typer.Option(
            "--passphrase-file",
            help='With seal = "passphrase": a TOML file (mode 0600), NAME = "passphrase" a line, for "authority",'
            ' "server" and each silo. Default: they are asked for.',
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a federation: its authority, the roster, and a kit for the server and for each silo."""
    from fedmodel.config import read_federation_file
    from fedmodel.errors import ConfigError
    from fedmodel.provision.authority import issue, read_scenarios
    from fedmodel.system.supervision import forbid_dumps

    forbid_dumps()  # everybody's keys are made in here
    file = read_federation_file(federation)
    if passphrase_file is not None and file.seal != "passphrase":
        raise ConfigError('--passphrase-file belongs to seal = "passphrase" in federation.toml; here are key files')
    scenarios = read_scenarios(file, federation.resolve().parent)
    passphrases = _passphrases(passphrase_file) if file.seal == "passphrase" else None
    with err.status("making kits"):
        change = issue(file, scenarios, out_folder, passphrases=passphrases)
    _tell(change, as_json)


@authority_app.command("add")
def authority_add(
    root: Root,
    name: Name,
    scenario: Annotated[
        list[str] | None, typer.Option(help="A scenario that names the new silo, in place of the old of its name.")
    ] = None,
    key_file: KeyFile = None,
    passphrase_file: PassphraseFile = None,
    new_passphrases: NewPassphrases = None,
    as_json: Json = False,
) -> None:
    """Add a silo: its kit and a newer roster; no other kit is touched."""
    from fedmodel.provision.authority import add, read_steadily

    scenarios = [read_steadily(one) for one in scenario or ()]
    opener = _opener(key_file, passphrase_file)
    _tell(add(root, name, opener, scenarios=scenarios, passphrases=_passphrases(new_passphrases)), as_json)


@authority_app.command("rotate")
def authority_rotate(
    root: Root,
    name: Name,
    key_file: KeyFile = None,
    passphrase_file: PassphraseFile = None,
    new_passphrases: NewPassphrases = None,
    as_json: Json = False,
) -> None:
    """Give a party new keys of every kind, and revoke the old."""
    from fedmodel.provision.authority import rotate

    opener = _opener(key_file, passphrase_file)
    _tell(rotate(root, name, opener, passphrases=_passphrases(new_passphrases)), as_json)


@authority_app.command("renew")
def authority_renew(
    root: Root,
    names: Annotated[list[str] | None, typer.Argument(help="Whose certificate. Default: everybody's.")] = None,
    key_file: KeyFile = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Issue certificates and the roster again, with new dates, for the keys that there are."""
    from fedmodel.provision.authority import renew

    _tell(renew(root, names or (), _opener(key_file, passphrase_file)), as_json)


@authority_app.command("revoke")
def authority_revoke(
    root: Root,
    name: Name,
    reason: Annotated[str, typer.Option(help="Why; the roster shows it to everybody.")],
    key_file: KeyFile = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Put a silo out of the federation."""
    from fedmodel.provision.authority import revoke

    _tell(revoke(root, name, reason, _opener(key_file, passphrase_file)), as_json)


@authority_app.command("show")
def authority_show(
    folder: Annotated[Path, typer.Argument(help="A federation's folder, or any kit.")], as_json: Json = False
) -> None:
    """Show who is in the roster, everybody's fingerprints, and what expires; nothing has to be opened."""
    from fedmodel.provision import expiring
    from fedmodel.provision.authority import show

    change = show(folder)
    kits = [folder / "authority", folder / "server", *sorted(folder.glob("silos/*")), folder]
    ending = [line for kit in kits if (kit / "roster.json").is_file() for line in expiring(kit)]
    _tell(change, as_json, ending)


def document(change: Change, expires: list[str]) -> dict[str, Any]:
    """Return what a change was, for `--json`."""
    roster = change.roster
    return {
        "federation": roster.federation,
        "serial": roster.serial,
        "issued": roster.issued,
        "expires": roster.expires,
        "members": [{"name": member.name, "role": member.role} for member in (roster.server, *roster.silos)],
        "revoked": [one.model_dump(mode="json") for one in roster.revoked],
        "fingerprints": change.fingerprints,
        "kit": None if change.changed is None else str(change.changed),
        "expiring": expires,
        "notes": list(change.notes),
    }


def fingerprint_table(fingerprints: dict[str, str]) -> Table:
    """Return everybody's digits, a party in two lines, within 80 columns."""
    table = Table(show_lines=True)
    table.add_column("party", overflow="fold", max_width=34)
    table.add_column("digits", no_wrap=True)
    for name, digits in fingerprints.items():
        groups = digits.split(" ")
        half = len(groups) // 2
        table.add_row(name, f"{' '.join(groups[:half])}\n{' '.join(groups[half:])}")
    return table


def _tell(change: Change, as_json: bool, expires: list[str] | None = None) -> None:
    """Print what was done and what to do now."""
    if as_json:
        answer(document(change, expires or []), "", as_json)
        return
    from fedmodel.crypto.signed_roster import BITS, GROUPS

    roster = change.roster
    out.print(
        f"Federation {roster.federation}: {counted(len(roster.silos), 'silo')}; roster {roster.serial}, good until"
        f" {roster.expires[:10]}.",
        highlight=False,
    )
    out.print(f"Compare all {GROUPS} groups of a party by telephone ({BITS} bits):", highlight=False)
    out.print(fingerprint_table(change.fingerprints))
    for gone in roster.revoked:
        out.print(f"Revoked: {gone.name} on {gone.when[:10]}: {gone.reason}", highlight=False, markup=False)
    for line in expires or ():
        err.print(line, style="yellow", highlight=False, markup=False, soft_wrap=True)
    if change.changed is not None:
        out.print(f"Made: {change.changed}", highlight=False, markup=False, soft_wrap=True)
    for note in change.notes:
        out.print(f"- {note}", highlight=False, markup=False, soft_wrap=True)


def _opener(key_file: Path | None, passphrase_file: Path | None) -> Opener:
    """Return what opens the authority."""
    return ask_opener(key_file, passphrase_file, lambda: typed("the authority"))


def _passphrases(path: Path | None) -> Callable[[str], str]:
    """Return what gives new passphrases: the file, or who sits there."""
    return typed_twice if path is None else passphrases_of(path)


VERBS: Final = (Verb(30, "provision", provision), Verb(50, "authority", authority_app))
