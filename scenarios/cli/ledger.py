"""The verbs of a privacy officer: `budget`, `ledger` and `silo`. Thin: `scenarios.runs.inspection` has the answers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.table import Table
from rich.text import Text

from fedmodel.errors import ConfigError, LedgerError
from fedmodel.privacy.rounding import down, noise, small, up
from fedmodel.system.inert import inert
from scenarios.cli.printing import Json, answer, json_line, out
from scenarios.cli.unlocking import KeyFile, PassphraseFile, ask_opener, typed
from scenarios.runs.claims import NO_NOISE

if TYPE_CHECKING:
    from scenarios.runs.inspection import Place

budget_app = typer.Typer(
    help="What a plan costs, what noise a target needs, what is spent and left.", no_args_is_help=True
)
ledger_app = typer.Typer(help="Whether a ledger is whole, and what a person enters into it.", no_args_is_help=True)
silo_app = typer.Typer(help="A silo: start it, and what it insists on.", no_args_is_help=True)
GROUPS = {"budget": budget_app, "ledger": ledger_app, "silo": silo_app}

_MOST_GROUPS: Final = 20

SampleRate = Annotated[float, typer.Option(help="Poisson rate of every lot, in (0, 1].")]
Steps = Annotated[int, typer.Option(min=1, help="DP-SGD steps in all.")]
Delta = Annotated[float, typer.Option(help="Delta of the claim, in (0, 1).")]
Ledger = Annotated[Path, typer.Argument(help="A silo's ledger, as ledgers/NAME.sqlite.")]
KitOption = Annotated[
    Path | None, typer.Option("--kit", help="The silo's kit. Default: silos/NAME beside the ledger's folder.")
]
Records = Annotated[int, typer.Option("--max-records", min=1, help="Most records of one person or client.")]
Fine = Annotated[bool, typer.Option("--fine", help="On the grid of 1e-4 instead of 1e-3: closer, and slower.")]
Reason = Annotated[str, typer.Option(help="Why; it is entered.")]


@budget_app.command("epsilon")
def budget_epsilon(
    noise_multiplier: Annotated[float, typer.Option(help="Noise over the clip.")],
    sample_rate: SampleRate,
    steps: Steps,
    delta: Delta,
    max_records: Records = 1,
    fine: Fine = False,
    as_json: Json = False,
) -> None:
    """Say what epsilon a plan costs, by PLD under add/remove of one record, or of one person with several."""
    from fedmodel.privacy import accounting
    from fedmodel.privacy.events import DpSgdEvent
    from scenarios.runs import inspection

    try:
        event = DpSgdEvent(noise_multiplier, 1.0, sample_rate, steps, denominator=1, max_records=max_records)
    except LedgerError as error:
        raise ConfigError(str(error)) from error
    found = inspection.figures([event], delta, accounting.FINE_GRID if fine else accounting.COARSE_GRID)
    if not math.isfinite(found["epsilon"]):
        raise ConfigError("no epsilon is computed for this plan: its noise is too small for its steps; raise it")
    line = (
        f"epsilon {up(found['epsilon'])}; no attack's advantage is over {up(found['advantage'])}; {up(found['mu'])}-GDP"
        f" wherever delta is over {small(found['mu_floor'])}"
    )
    answer({**found, "delta": delta, "accountant": accounting.ACCOUNTANT}, line, as_json)


@budget_app.command("calibrate")
def budget_calibrate(
    epsilon: Annotated[float, typer.Option(help="The target, above 0.")],
    sample_rate: SampleRate,
    steps: Steps,
    delta: Delta,
    max_records: Records = 1,
    as_json: Json = False,
) -> None:
    """Say what noise multiplier keeps a plan at or under a target epsilon."""
    from fedmodel.privacy import accounting

    noise = accounting.calibrate(epsilon, delta, sample_rate, steps, max_records)
    found = {"noise_multiplier": noise, "epsilon": epsilon, "delta": delta, "accountant": accounting.ACCOUNTANT}
    answer(found, f"noise multiplier {up(noise)}", as_json)


@budget_app.command("show")
def budget_show(ledger: Ledger, as_json: Json = False) -> None:
    """Say what a silo has spent, holds for runs, and has left."""
    from scenarios.runs import inspection

    found = inspection.spent(ledger)
    if as_json:
        answer(_finite(found), "", as_json)
        return
    for scope in found["scopes"]:
        _show_scope(found["silo"], scope)


@budget_app.command("forecast")
def budget_forecast(
    ledger: Ledger,
    scenario: Annotated[str, typer.Argument(help="A TOML file, or the name of a built-in scenario.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key, as in privacy.epsilon=2.")
    ] = None,
    silo: Annotated[str | None, typer.Option(help="The silo's name in the scenario. Default: the ledger's.")] = None,
    as_json: Json = False,
) -> None:
    """Say how many more runs of a scenario, or rounds of one, a silo's budget admits."""
    from fedmodel.config import read_scenario
    from scenarios.runs import inspection

    found = inspection.forecast(ledger, read_scenario(scenario, settings or ()), silo)
    line = (
        f"{found['runs']} whole runs fit, or {found['rounds']} rounds of one (of {found['rounds_of_a_run']}), at noise"
        f" {up(found['noise_multiplier'])}; a whole run alone costs epsilon {up(found['epsilon_of_a_run'])}"
    )
    answer(_finite(found), line, as_json)


@ledger_app.command("verify")
def ledger_verify(
    ledger: Ledger,
    head: Annotated[list[Path] | None, typer.Option("--head", help="A signed head that somebody kept.")] = None,
    key: Annotated[
        str | None, typer.Option(help="The silo's public key, in hexadecimal. Default: the roster's.")
    ] = None,
    kit: KitOption = None,
    as_json: Json = False,
) -> None:
    """Check every entry, signature, total and byte of a ledger, and that it extends every head that is known."""
    from scenarios.runs import inspection

    try:
        found = inspection.verify(inspection.Place.of(ledger, kit), head or [], key)
    except LedgerError as error:
        if as_json:
            answer(inspection.refused(error), "", as_json)
        raise
    document = inspection.told(found)
    line = f"{inert(str(ledger))}: {document['entries']} entries of silo {document['silo']}, all as they were written"
    if found.heads:
        line += f"; extends {len(found.heads)} signed heads, the newest of {max(found.heads)} entries"
    else:
        line += "; NO signed head is known, so deleted newest entries would not show"
    if found.key_is_its_own:
        line += "; NOBODY ELSE vouches for its key: give --key"
    if not found.unused_compared:
        line += "; its unused bytes were laid out by another version of SQLite and were not compared"
    answer(document, line, as_json)


@ledger_app.command("checkpoint")
def ledger_checkpoint(
    ledger: Ledger,
    to: Annotated[str, typer.Option(help="Who gets it; it is entered.")],
    kit: KitOption = None,
    key_file: KeyFile = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Print a signed head of a ledger, for somebody else to keep."""
    from scenarios.runs import inspection

    place = _unlocked(inspection.Place.of(ledger, kit), key_file, passphrase_file)
    with place.open() as opened:
        note = opened.checkpoint(_said(to, "--to")).decode()
    answer({"head": note}, note.rstrip(), as_json)


@ledger_app.command("export")
def ledger_export(ledger: Ledger, kit: KitOption = None, as_json: Json = False) -> None:
    """Verify a ledger, and print its entries: a JSON object a line, or one object with --json."""
    from scenarios.runs import inspection

    documents = inspection.entries(inspection.verify(inspection.Place.of(ledger, kit), [], None))
    answer({"entries": documents}, "\n".join(map(json_line, documents)), as_json)


@ledger_app.command("void")
def ledger_void(
    ledger: Ledger,
    run: Annotated[str, typer.Argument(help="A run that `budget show` lists.")],
    reason: Reason,
    round_number: Annotated[
        int | None, typer.Option("--round", help="The newest charge's round. Default: all that is not taken.")
    ] = None,
    kit: KitOption = None,
    key_file: KeyFile = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Give back what a run holds and will not take, or the newest charge if nothing of it left."""
    from scenarios.runs import inspection

    place = _unlocked(inspection.Place.of(ledger, kit), key_file, passphrase_file)
    done = inspection.give_back(place, run, round_number, _said(reason, "--reason"))
    answer({"done": done}, done, as_json)


@ledger_app.command("override")
def ledger_override(
    ledger: Ledger,
    scope: Annotated[str, typer.Argument(help="A budget that `budget show` lists, as breast-cancer/record.")],
    epsilon: Annotated[float, typer.Option(help="The new cap.")],
    reason: Reason,
    by: Annotated[str, typer.Option(help="Who decides; it is entered.")],
    kit: KitOption = None,
    key_file: KeyFile = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Change a budget's cap. Until silo.toml says the same, the silo refuses to train."""
    from scenarios.runs import inspection

    place = _unlocked(inspection.Place.of(ledger, kit), key_file, passphrase_file)
    inspection.override(place, scope, epsilon, _said(reason, "--reason"), _said(by, "--by"))
    answer({"scope": scope, "epsilon": epsilon}, f"{scope}: the cap is epsilon {up(epsilon)}, by {by}", as_json)


@silo_app.command("policy")
def silo_policy(
    kit: Annotated[Path, typer.Argument(help="A silo's kit, as silos/NAME.")],
    by: Annotated[str | None, typer.Option("--sign-off", metavar="NAME", help="Enter that NAME approves it.")] = None,
    ids: Annotated[bool, typer.Option("--ids", help="Read the tables, for ids that look like one person's.")] = False,
    key_file: KeyFile = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Say in plain sentences what a silo insists on, for a person to approve."""
    from scenarios.runs import inspection

    law, sentences = inspection.law_of(kit)
    if by is not None:
        place = _unlocked(
            inspection.Place(inspection.ledger_of(kit, law.name), kit.resolve()), key_file, passphrase_file
        )
        inspection.sign_off(place, law, _said(by, "--sign-off"))
        sentences = [*sentences, f"Approved by {by}; the ledger says so."]
    document = {"silo": law.name, "sentences": sentences, "policy": law.model_dump(mode="json")}
    if ids:
        document["lookalikes"] = found = inspection.lookalikes_of(kit, law)
        sentences = [*sentences, *(line for name, groups in found.items() for line in _lookalikes(name, groups))]
        document["sentences"] = sentences
    if as_json:
        answer(document, "", as_json)
        return
    for sentence in sentences:
        out.print(f"- {sentence}", highlight=False, markup=False)


def _lookalikes(table: str, groups: list[tuple[str, ...]]) -> list[str]:
    """Say where ids of a table look alike, as many as a person reads."""
    if not groups:
        return [f"No two ids of {table} look alike."]
    more = f" The first {_MOST_GROUPS} follow; --json has all." if len(groups) > _MOST_GROUPS else ""
    return [
        f"Some ids of {table} are several persons' by the form declared, and differ in case, leading zeros, spaces,"
        f" punctuation or width alone; groups of such ids: {len(groups)}.{more}",
        *(f"They look like one person's: {', '.join(places)}." for places in groups[:_MOST_GROUPS]),
    ]


@silo_app.command("schema")
def silo_schema() -> None:
    """Print the JSON schema of silo.toml."""
    from fedmodel.config import SiloFile

    print(json.dumps(SiloFile.model_json_schema(), indent=2))  # noqa: T201


def _unlocked(place: Place, key_file: Path | None, passphrase_file: Path | None) -> Place:
    """Return a place whose keys are open, asking for a passphrase where they are sealed and no file is given."""
    place.unlock(lambda: ask_opener(key_file, passphrase_file, lambda: typed(place.ledger.stem)))
    return place


def _show_scope(silo: str, scope: dict[str, Any]) -> None:
    """Print one budget for a person."""
    divergence, whole = scope["divergence"], scope["taken_whole"]
    about = f", {scope['scope']}: budget epsilon {up(scope['budget'])} at delta {small(scope['delta'])}"
    out.print(Text.assemble((silo, "bold"), about), highlight=False)
    table = Table(title="By run", title_justify="left")
    for heading in ("run", "rounds", "steps", "held", "noise", "epsilon", "of steps taken", "admitted by"):
        table.add_column(heading, justify="left" if heading in ("run", "admitted by") else "right")
    for run in scope["runs"]:
        table.add_row(
            run["run"], str(run["rounds"]), str(run["steps"]), str(run["held_steps"]),
            noise(run["noise_multiplier"]), up(run["epsilon"]), up(run["epsilon_of_steps_taken"]), run["admitted"],
        )  # fmt: skip
    out.print(table)
    if scope["without_noise"]:
        out.print(NO_NOISE, style="bold red", highlight=False)
        return
    if whole:
        left = "One plan, fixed in advance, took the whole budget: nothing is left for another."
    else:
        left = (
            f"Of {down(divergence['cap'])} of Rényi divergence of order {scope['order']}: spent"
            f" {up(divergence['spent'])}, held {up(divergence['reserved'] - divergence['spent'])}, left"
            f" {down(divergence['left'])}."
        )
    out.print(left, highlight=False)
    out.print(
        f"However plans were chosen and wherever they ended, all of it is within epsilon {up(scope['epsilon'])}; of"
        f" each run the whole plan counts. Of the steps taken it would be {up(scope['epsilon_of_steps_taken'])}, had"
        " every plan and its length been fixed in advance.",
        highlight=False,
    )
    if scope["raised"]:
        out.print("A person raised the cap since: that holds if they did not choose it by looking.", highlight=False)
    if scope["advantage"] is not None:
        points = ", ".join(f"{up(epsilon)}: {small(delta)}" for epsilon, delta in scope["curve"])
        out.print(
            f"All plans in full, had each been fixed in advance (PLD): epsilon {up(scope['epsilon_of_plans'])}; no"
            f" attack tells presence from absence with an advantage over {up(scope['advantage'])};"
            f" {up(scope['mu'])}-GDP wherever delta is over {small(scope['mu_floor'])}; delta at epsilon {points}.",
            highlight=False,
        )
    if "seeded-unsafe" in scope["noise_sources"]:
        out.print(
            "Noise was seeded: whoever knows the seed can remove it. No figure here protects anybody.", style="bold red"
        )


def _said(words: str, option: str) -> str:
    """Refuse an empty answer where a person has to give one, and one that would not show as what it is."""
    if not words.strip():
        raise ConfigError(f"{option} is empty; what is entered into a ledger says something")
    if inert(words) != words:
        raise ConfigError(
            f"{option} has a character that acts or is not seen, and a ledger is read by people: {inert(words)}"
        )
    return words


def _finite(document: Any) -> Any:
    """Return a document with null for every figure that is not finite: JSON has no infinity."""
    if isinstance(document, dict):
        return {key: _finite(value) for key, value in document.items()}
    if isinstance(document, list):
        return [_finite(value) for value in document]
    return None if isinstance(document, float) and not math.isfinite(document) else document
