"""What a round of a deployment takes: Flower's own processes, and the ones that `fedmodel server|silo start` keep up.

    python -m benchmarks.deployment [--scenario hospitals] [--rounds 6] [--loopback]

Both ways run the same scenario with the same apps, one after the other on this machine: a real SuperLink and a real
SuperNode for each silo.

    before   Flower's `flower-superlink` and `flower-supernode`, subprocess isolation, no TLS: a process a message, a
             node that looks for messages every 3 s
    after    `fedmodel deploy-local`: TLS 1.3 with client certificates, kits, checkpoints, warm executors

The first round of a window is the dearer one, since shares are dealt in it; the median of all others is what counts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from contextlib import ExitStack, nullcontext
from pathlib import Path

import tomli_w

from fedmodel.config import Scenario, read_scenario
from fedmodel.provision import provision
from scenarios.deployment.rehearsal import rehearse
from scenarios.simulation.engines import flower
from scenarios.simulation.simulate import check_scenario


def main() -> None:
    """Run both, and print seconds a round and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", default="hospitals")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--loopback", action="store_true")
    options = parser.parse_args()
    settings = [f"rounds={options.rounds}", "federation.round_timeout_s=120.0"]
    scenario = read_scenario(options.scenario, settings)
    parameters = check_scenario(scenario)
    with tempfile.TemporaryDirectory(prefix="fm-") as scratch:
        after = Path(scratch) / "after"
        after.mkdir()
        apart = False if options.loopback else None
        summary = rehearse(scenario, parameters, after, lambda _: nullcontext(), apart=apart)
        now_s = _seconds(after / "metrics.jsonl", scenario)
        before = Path(scratch) / "before"
        before.mkdir()
        _as_flower_does(scenario, before)
        then_s = _seconds(before / "run" / "metrics.jsonl", scenario)
    print(f"{scenario.name}, {len(scenario.federation.silos)} silos, {parameters} parameters, {summary['network']}")
    for name, (first_s, steady_s) in (("before", then_s), ("after", now_s)):
        print(f"  {name:7} first round {first_s:6.2f} s   steady round {steady_s:6.2f} s")
    print(f"  steady round: {then_s[1] / now_s[1]:.1f} times less")


def _seconds(metrics: Path, scenario: Scenario) -> tuple[float, float]:
    """Return the first round's seconds, and the median of the rounds that deal no shares."""
    window = scenario.encryption.window if scenario.encryption.secure_aggregation == "on" else scenario.rounds
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    steady = [line["seconds"] for line in lines if (line["round"] - 1) % window]
    return lines[0]["seconds"], statistics.median(steady)


def _as_flower_does(scenario: Scenario, work: Path) -> None:
    """Run the scenario under Flower's own commands, as its documentation starts them."""
    run_dir = work / "run"
    run_dir.mkdir()
    provision(scenario, run_dir)
    flower.write_bundle(work / "app")
    port = flower.free_port()
    environment = flower.flower_environment(work / "flower-home", port)
    run_config = {"scenario": scenario.model_dump_json(exclude_none=True), "run-dir": str(run_dir), "device": "cpu"}
    (work / "run.toml").write_text(tomli_w.dumps(run_config), encoding="utf-8")
    with ExitStack() as stack:
        link = [flower.tool("flower-superlink"), "--insecure", "--isolation", "subprocess"]
        link += ["--host", "127.0.0.1", "--port", str(port), "--disable-runtime-dependency-installation"]
        superlink = stack.enter_context(flower.running(link, work / "superlink", environment))
        flower.wait_healthy(superlink, port, work / "superlink" / "log")
        silos = scenario.federation.silos
        for number, silo in enumerate(silos):
            node = [flower.tool("flower-supernode"), "--insecure", "--superlink", f"127.0.0.1:{port}"]
            node += ["--host", "127.0.0.1", "--port", str(flower.free_port())]
            node += ["--node-config", f'partition-id={number} num-partitions={len(silos)} home="{run_dir}"']
            stack.enter_context(flower.running(node, work / silo, environment))
        asked = ["run", str(work / "app"), "here", "--run-config", str(work / "run.toml")]
        started = flower.flwr_json(asked, work / "superlink", environment)
        status = flower.follow(str(started["run-id"]), work / "superlink", environment)
    if status != "finished:completed":
        raise SystemExit(f"Flower's run ended as {status}: {(run_dir / 'server.log').read_text(encoding='utf-8')}")


if __name__ == "__main__":
    main()
