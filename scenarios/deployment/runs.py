"""What a server's operator does: hand in a run and follow it, and ask how server, silos and runs stand.

Everything is read from the kit's own folder, as the account that the server runs under; no port is opened for it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from fedmodel.config import Scenario, read_scenario
from fedmodel.errors import ConfigError, error_kind
from fedmodel.kinds import bases, own_code
from fedmodel.learning.starts import read_start
from fedmodel.learning.tasks import figures_of
from fedmodel.ledger import origin_of
from fedmodel.ledger.heads import open_head
from fedmodel.provision import (
    check_based,
    check_deployable,
    check_listed,
    expiring,
    party_fingerprint,
    read_federation_roster,
    read_server_law,
)
from fedmodel.system.packages import code_hash
from scenarios.runs.own_code import named_code
from scenarios.runs.summary import read_metrics, rows_reported, sum_up
from scenarios.runs.usefulness import told_of
from scenarios.simulation.simulate import check_scenario
from server import runs
from server.strategies import check_listed_strategy

_POLL_S: Final = 0.2
_PATIENCE: Final = 2  # heartbeats that Flower lets a node miss


def submit(home: Path, scenario: Scenario, rehearsed: str | None = None) -> tuple[runs.Submitted, int]:
    """Check a scenario and hand it in; returns the run, and the number of the model's parameters.

    What it begins from, if that is a file, is resolved (`fedmodel.learning.starts`), and handed in with it, sealed to
    the server.

    Args:
        home: The server's kit.
        scenario: What is to be done.
        rehearsed: On what network one machine plays all parties; None where each is its own.

    Raises:
        ConfigError: When the scenario could not run, names other silos than the roster, or a strategy that is not code
            that the server's file approved of.
    """
    check_deployable(scenario)
    law = read_server_law(home)
    packages = law.packages
    check_listed(scenario, packages)
    check_based(scenario, law.bases)
    bases.lie_at(law.bases, home)
    code_hash(packages)  # which says where one of them cannot be had here as it is listed
    if scenario.own_code:
        own_code.open_to_all()
    check_listed_strategy(scenario, law.strategy_packages)
    parameters = check_scenario(scenario, deployed=True)
    start = None if scenario.start is None else read_start(scenario.start)
    checked = None
    if scenario.own_code:
        strategies = {name: listed.version for name, listed in law.strategy_packages.items()}
        checked = {"parameters": parameters, "own_code": named_code(scenario, packages, strategies)}
    return runs.submit(home, scenario, start, rehearsed, checked), parameters


def follow(run: runs.Submitted, watching: AbstractContextManager[object], alive: Callable[[], None]) -> None:
    """Wait until a run has its outcome.

    Args:
        run: As it was handed in.
        watching: Open meanwhile, such as a progress bar over the run's metrics.
        alive: Called again and again; raises where nobody is there any more to bring the run to its end.

    Raises:
        FedmodelError: When the run failed, with the reason that the server wrote down and the exit status of its kind.
    """
    with watching:
        while (ended := runs.outcome_of(run.folder)) is None:
            alive()
            time.sleep(_POLL_S)
    if not ended.completed:
        raise error_kind(ended.code)(f"run {run.folder.name} failed: {ended.error}")


def summary_of(run: runs.Submitted, scenario: Scenario, parameters: int, seconds: float) -> dict[str, Any]:
    """Sum up a run at the server, which has no ledger of a silo: privacy is what silos reported."""
    privacy = rows_reported(scenario, run.folder)
    return sum_up(
        scenario,
        run.folder,
        seconds,
        privacy,
        engine="deployment",
        device="silos' own",
        parameters=parameters,
        packages=read_server_law(runs.home_of(run.folder)).packages,
        code=named_of(run.folder),
    )


def named_of(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of code of the user's own that were noted as a run was handed in; none where it names none."""
    return list((runs.checked_of(folder) or {}).get("own_code", ()))


def status_of(home: Path) -> dict[str, Any]:
    """Return how a server stands: whether it runs, its silos with their last signs of life and ledgers, its runs.

    Raises:
        ConfigError: When the folder is no server's kit.
    """
    from fedmodel.provision.in_use import running

    read_server_law(home)
    roster = read_federation_roster(home, expired_too=True)
    socket = running(home)
    nodes = {} if socket is None else _nodes(socket)
    silos = []
    for silo in roster.silos:
        path, key = home / "heads" / silo.name, bytes.fromhex(silo.identity)
        head = open_head(path.read_bytes(), origin_of(silo.name), key) if path.exists() else None
        silos.append(
            {
                "silo": silo.name,
                **nodes.get((silo.node or "").strip(), {"state": "unknown", "last_seen": None}),
                "ledger_entries": None if head is None else head.size,
                "fingerprint": party_fingerprint(roster.federation, silo),
            }
        )
    return {
        "federation": roster.federation,
        "running": socket is not None,
        "roster": {"serial": roster.serial, "expires": roster.expires},
        "silos": silos,
        "runs": [_run(folder) for folder in runs.folders(home)],
        "warnings": expiring(home),
    }


def _nodes(socket: Path) -> Mapping[str, dict[str, Any]]:
    """Ask the SuperLink how its nodes do, by their public keys."""
    import httpx
    from flwr.proto.control_pb2 import ListNodesRequest

    from fedmodel.wire.runtime import SocketControl

    try:
        with SocketControl(socket) as control:
            listed = control.ListNodes(ListNodesRequest()).nodes_info
    except httpx.HTTPError:
        return {}  # it is just starting, or starting again
    return {
        bytes(node.public_key).decode().strip(): {"state": str(node.status), "last_seen": _last_seen(node)}
        for node in listed
    }


def _last_seen(node: Any) -> str | None:
    """Return when a node last gave a sign of life: Flower keeps until when it is taken for alive after one."""
    if not node.last_activated_at:
        return None
    if node.status != "online":
        return str(node.last_deactivated_at or node.last_activated_at)
    last = node.online_until - _PATIENCE * node.heartbeat_interval
    return datetime.fromtimestamp(last, UTC).isoformat(timespec="seconds")


def _run(folder: Path) -> dict[str, Any]:
    """Return how a run stands."""
    ended, lines = runs.outcome_of(folder), read_metrics(folder / "metrics.jsonl")
    state = "waiting or running" if ended is None else "completed" if ended.completed else f"failed: {ended.code}"
    scenario = read_scenario(str(folder / runs.SCENARIO))
    whole: dict[str, Any] = next((line for line in reversed(lines) if "failed" not in line), {})
    return {
        "run": folder.name,
        "state": state,
        "rounds": len(lines),
        "rounds_planned": scenario.rounds,
        "accuracy": next((line["accuracy"] for line in reversed(lines) if "accuracy" in line), None),
        "metrics": {name: whole[name] for name in (*figures_of(scenario), "loss") if name in whole},
        "usefulness": told_of(folder),
        "error": "" if ended is None else ended.error,
    }


def check_server_runs(home: Path) -> None:
    """Refuse to wait for a run that nobody will bring to its end.

    Raises:
        ConfigError: When it is no server's kit, another account's, or no server runs from it on this machine.
    """
    from fedmodel.provision.in_use import running

    read_server_law(home)
    if home.stat().st_uid != os.geteuid():
        raise ConfigError(
            f"{home}: is user {home.stat().st_uid}'s, and this is user {os.geteuid()}; hand runs in under the account"
            " that the server runs under"
        )
    if running(home) is None:
        raise ConfigError(
            f"no server runs from {home}, so nothing would happen; start it with `fedmodel server start {home}`, and"
            " the runs that were handed in go on"
        )
