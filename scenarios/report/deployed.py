"""The report of a deployed run: the server's, of what silos reported to it; and each silo's own, of its ledger.

The server has no ledger. Its report has what it knows: the scenario, the rounds, what each silo reported that it
charged, and the newest signed head of each ledger. It lies in the run's folder, and beside it a copy for each silo,
which has no other silo's figures (`scenarios.report.copies`). An engineer hands that copy over, as a folder.

A silo holds the copy to the roster of its own kit, to its law and to its ledger, and makes its own report of it: the
same run, with what its ledger says, this run and all others of its budgets. It signs that with its key, over the
server's report too.

Guarantee: neither imports code of the user's own, whatever lies under its names by now: what it was was noted when the
run was handed in. `silo_report` signs nothing of which a figure of the server's contradicts the silo's ledger, and
nothing of a server that the silo's law does not name.

Does NOT show a server what a silo's report says: a silo hands it to whom it likes.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from fedmodel.config import Scenario, SiloFile, read_scenario
from fedmodel.errors import ConfigError, PolicyRefused
from fedmodel.kinds import bases
from fedmodel.learning.models import parameters_of
from fedmodel.ledger import ledger_image
from fedmodel.provision import is_sealed, read_identity, read_law, read_server_law
from fedmodel.provision.kits import LAW
from fedmodel.system.durable import erase_folder, replace_file, sync_folder
from scenarios.report import build
from scenarios.report.copies import ANCHORS, OF_A_COPY, lay_out_copy
from scenarios.report.gather import METRICS, SCENARIO, SERVER_REPORT, SUMMARY
from scenarios.report.page_check import PAGE, Render
from scenarios.runs.inspection import ledger_of
from scenarios.runs.ledgers import ledger_in_run
from scenarios.runs.summary import TOLD_MODEL, read_metrics, rows_reported, sum_up
from server import runs
from server.run_files import RunFiles

COPIES: Final = "copies"
REPORTS: Final = "reports"
_NUMBER: Final = re.compile(r"[0-9]{1,20}")  # it names a folder of the kit, and a server says it


def check_server_kit(home: Path) -> None:
    """Refuse a folder that is no deployed server's kit.

    Raises:
        ConfigError: When it is none.
    """
    if (home / LAW).is_file():
        raise ConfigError(f"{home}: is a silo's kit; its report is made by `fedmodel silo report`")
    read_server_law(home)


def check_silo_kit(kit: Path) -> SiloFile:
    """Return the law of a deployed silo's kit.

    Raises:
        ConfigError: When it is none.
    """
    law = read_law(kit)
    if not is_sealed(kit):
        raise ConfigError(f"{kit}: is a simulated silo's kit; `fedmodel report build` makes a simulation's report")
    return law


def server_report(home: Path, run: str, render: Render) -> Path:
    """Make the report of a deployed run, and a copy of it for each silo.

    Args:
        home: The server's kit, unlocked.
        run: The run's folder in it, by its name or its number.
        render: Makes the pages.

    Returns:
        Where the page lies.

    Raises:
        ConfigError: When there is no such run, it has not ended, or its folder cannot be written to.
        ClaimRefuted: When `summary.json` tells another figure than follows from what silos reported.
        LedgerError: When a file of the run is not as the server wrote it.
    """
    folder, identity = _ended(home, run), read_identity(home)
    scenario = read_scenario(str(folder / SCENARIO))
    _sum_up(home, folder, scenario)
    (folder / "server" / "heads").mkdir(mode=0o700, parents=True, exist_ok=True)
    heads = [f"heads/{silo}" for silo in scenario.federation.silos]
    for name in (*ANCHORS, *heads):
        if (home / name).is_file():
            replace_file(folder / "server" / name, (home / name).read_bytes())
    page = build.build(folder, render, identity)
    for silo in scenario.federation.silos:
        copy = folder / COPIES / silo
        copy.mkdir(mode=0o700, parents=True, exist_ok=True)
        lay_out_copy(folder, scenario, silo, copy)
        build.build(copy, render, identity)
    return page


def _ended(home: Path, run: str) -> Path:
    """Return the folder of a run that has ended, by its name, its path or its number."""
    known = runs.folders(home)
    for folder in known:
        if run in (folder.name, str(folder), runs.number_of(folder)) or Path(run).resolve() == folder.resolve():
            if runs.outcome_of(folder) is None:
                raise ConfigError(
                    f"run {folder.name} has not ended; `fedmodel server status {home}` says how far it is"
                )
            return folder
    raise ConfigError(f"{home}: has no run {run!r}; known: {', '.join(one.name for one in known) or 'none'}")


def _sum_up(home: Path, folder: Path, scenario: Scenario) -> None:
    """Write the run's summary where `submit` did not stay to do it, and the model's hash into it."""
    path = folder / SUMMARY
    if not path.exists():
        seconds = sum(float(line["seconds"]) for line in read_metrics(folder / METRICS))
        reported = rows_reported(scenario, folder)
        network = runs.network_of(folder)
        about = {} if network is None else {runs.NETWORK: network}
        bases.lie_at(read_server_law(home).bases, home)
        parameters, code = _checked(scenario, folder)
        sum_up(
            scenario,
            folder,
            seconds,
            reported,
            engine="deployment",
            device="silos' own",
            parameters=parameters,
            packages=read_server_law(home).packages,
            code=code,
            **about,
        )
    summary, model = json.loads(path.read_bytes()), RunFiles(folder, home, sealed=True).model_hash()
    if model is not None:
        told = json.dumps({**summary, TOLD_MODEL: model.hex()}, indent=2, allow_nan=False)
        replace_file(path, f"{told}\n".encode())


def _checked(scenario: Scenario, folder: Path) -> tuple[int, list[dict[str, Any]]]:
    """Return the model's parameters and the code of the user's own, as noted when the run was handed in.

    By now other code may lie under its names, and whoever makes a report runs none of it.
    """
    if not scenario.own_code:
        return parameters_of(scenario.model, scenario.data.shape), []
    noted = runs.checked_of(folder) or {}
    try:
        return int(noted["parameters"]), list(noted["own_code"])
    except (KeyError, TypeError, ValueError):
        raise ConfigError(
            f"{folder / runs.RUN}: does not say what code {next(iter(scenario.own_code.values()))!r} was when the run"
            " was handed in, and a report imports none to find out; put back the file that `server submit` wrote"
        ) from None


def silo_report(kit: Path, copy: Path, render: Render) -> Path:
    """Make a silo's own report of a deployed run, from what its server handed over and from its ledger.

    Args:
        kit: The silo's, unlocked.
        copy: The folder that the server made for it.
        render: Makes the page.

    Returns:
        Where the page lies: in `reports/NUMBER` of the kit.

    Raises:
        ConfigError: When it is no copy for this silo, its run has no number, or the report cannot be written.
        PolicyRefused: When another server signed it than the silo's law names.
        ClaimRefuted: When a figure of the server's does not follow, or the ledger says another.
        LedgerError: When a file, a signature or the ledger is not as it was written.
    """
    law, handed = read_law(kit), build.read_report(copy)
    told = handed.report.run
    if told.copy_for != law.name or not told.reported or told.run is None:
        whose = "a whole run's" if told.copy_for is None else f"silo {told.copy_for}'s"
        raise ConfigError(
            f"{copy}: is {whose} report, and this is silo {law.name}; ask the server's operator for the folder"
            f" {COPIES}/{law.name} that `fedmodel server report` made"
        )
    if handed.key.hex() not in law.servers:
        raise PolicyRefused(
            f"{copy}: is signed by server key {handed.key.hex()[:16]}..., which silo.toml does not name; nothing is"
            " signed beside it"
        )
    if _NUMBER.fullmatch(told.run) is None:
        raise ConfigError(f"{copy}: calls a run {told.run!r}, and a run's number is 1 to 20 digits; nothing is signed")
    folder = kit / REPORTS / told.run
    partial = folder.with_name(f"{told.run}.partial")
    try:
        erase_folder(partial)
        _lay_out(kit, law.name, copy, handed.data, partial)
        # It holds the server's to the ledger before it signs.
        build.build(partial, render, read_identity(kit), law=law)
        erase_folder(folder)
        partial.rename(folder)
        sync_folder(folder.parent)
    except OSError as error:
        raise ConfigError(f"{folder}: the report cannot be written there: {error.strerror}") from None
    finally:
        with suppress(OSError):
            erase_folder(partial)
    return folder / PAGE


def _lay_out(kit: Path, silo: str, copy: Path, handed: bytes, folder: Path) -> None:
    """Put what the server handed over and the silo's ledger into a folder, by names that are known here alone."""
    for name in ("ledgers", "server/heads", f"silos/{silo}"):
        (folder / name).mkdir(mode=0o700, parents=True)
    for name in (*OF_A_COPY, f"server/heads/{silo}"):
        if (copy / name).is_file():
            replace_file(folder / name, (copy / name).read_bytes())
    for name in ANCHORS:  # the silo's own, which it trusts
        if (kit / name).is_file():
            replace_file(folder / "server" / name, (kit / name).read_bytes())
    replace_file(folder / SERVER_REPORT, handed)
    replace_file(ledger_in_run(folder, silo), ledger_image(ledger_of(kit, silo)))
    replace_file(folder / "silos" / silo / "ledger.head", (kit / "ledger.head").read_bytes())
