"""The app of a folder that `fedmodel new --flower` made: what `flwr run .` starts there.

    [tool.flwr.app.config]     in the folder's pyproject.toml, each to be overridden by `--run-config`
    folder      from the root: where paths of the scenario begin, as they do where `fedmodel simulate` is called
    scenario    the scenario's file, from there
    set         what `--set` would say, with blanks between: "rounds=3 privacy.epsilon=2.0"
    device      "cpu", or "cuda"

It is `fedmodel simulate --engine flower` with the run begun by Flower: the same checks before anything is written,
the same ledgers, the same summary and report. All of it lies in `runs/`, beside the scenario, in a folder whose name
is the number that `flwr run` prints. Where a run of the same scenario, settings and code was cut short there, and of
the same records where `[data] use` names them, the command takes it up instead, in its folder and by its number in
the ledgers, after its last whole round. The app bundle that Flower carries has the scenario alone; code and records
are read from where they lie, so that nothing of a record is ever copied to Flower's own folder.

Does NOT switch off what Flower's own command does before this app begins, such as its telemetry: docs/from-flower.md
says how. `flwr run` itself exits 0 for a run that fails, and `flwr ls` says how it ended.
"""

from __future__ import annotations

import logging
import shlex
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Final

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedmodel.errors import ConfigError
from fedmodel.system.environment import check_packages
from scenarios.simulation.hosting import Hosted, HostedClient

if TYPE_CHECKING:
    from scenarios.simulation.prepared import Prepared

_NAMED: Final = "the folder's pyproject.toml, under [tool.flwr.app.config]"
_ENGINE: Final = "flower"
_flowers_log: Final = logging.getLogger("flwr")  # what `flwr log` shows

server = ServerApp()
client = HostedClient()


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Check the scenario, run it over the nodes that there are, and write its report.

    Raises:
        FedmodelError: When the configuration is not acceptable or the scenario is refused, and nothing was written; or
            when the run fails, and what was written until then stays.
    """
    from scenarios.face.run import Run
    from scenarios.report.illustrated import write_report

    check_packages()
    folder, scenario = _placed(*(str(context.run_config.get(key) or "") for key in ("folder", "scenario")))
    device = str(context.run_config.get("device") or "cpu")
    if device not in ("cpu", "cuda"):
        raise ConfigError(f'device = {device!r} in {_NAMED}: say "cpu" or "cuda"')
    settings = _settings(str(context.run_config.get("set") or ""))
    prepared = _prepared(scenario, settings, device, folder, str(context.run_id))
    with prepared.held() as run_dir:
        prepared.run(run_dir, nullcontext(), Hosted(grid=grid, node_id=context.node_id))
        _flowers_log.info("%s", Run.read(run_dir))
        _flowers_log.info("Report: %s", write_report(run_dir))


def _prepared(scenario: Path, settings: list[str], device: str, folder: Path, number: str) -> Prepared:
    """Return the run that was cut short here, if it is the one that is asked for, or else a new one of this number.

    What is asked for hangs on the seed of the run that began, where the scenario says none. So it is prepared for each
    run that was left, the newest first, and at last for a new one.
    """
    from scenarios.simulation.prepared import prepare
    from scenarios.simulation.resuming import goes_on_in, left_in

    runs = scenario.parent / "runs"
    for left, _ in left_in(runs, _ENGINE, device):
        prepared = prepare(str(scenario), settings, _ENGINE, device, left, folder)
        if goes_on_in(left, prepared.scenario, _ENGINE, prepared.device):
            _flowers_log.info("Goes on with the run that was cut short in %s; move that folder to begin anew", left)
            return prepared
    return prepare(str(scenario), settings, _ENGINE, device, runs / number, folder)


def _placed(folder: str, scenario: str) -> tuple[Path, Path]:
    """Return where paths begin, and the scenario's file.

    Raises:
        ConfigError: When they are not there, as after the folder was moved.
    """
    path = Path(folder)
    if not path.is_absolute() or not path.is_dir():
        raise ConfigError(
            f"folder = {folder!r} in {_NAMED}: is no folder, said from the root; was it moved? say where paths of the"
            " scenario begin now"
        )
    if not scenario or not (path / scenario).is_file():
        raise ConfigError(f"scenario = {scenario!r} in {_NAMED}: is no file in {folder}; say where the scenario lies")
    return path, path / scenario


def _settings(said: str) -> list[str]:
    """Return what `set` says, as a shell would part it."""
    try:
        return shlex.split(said)
    except ValueError as error:
        raise ConfigError(f"set = {said!r} in {_NAMED}: {error}; close the quotation") from None
