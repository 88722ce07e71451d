"""What a round of many silos costs in other simulators: Flower under Ray, pfl, and a plain loop, on the same work.

    python benchmarks/simulation_peers.py [--silos 100 1000] [--peers plain-loop pfl flower] [--rounds 3] [--json]

A network of 10, 64, 32 and 2 units, 64 records a silo, `STEPS` steps of plain SGD on 16 of them, no privacy: what
`benchmarks/stacked.py` measures of this project without privacy. Figures are the median seconds of a round after the
first by the clock, and CPU seconds of a round of this process and of those that it started and that have ended. A peer
that is not installed (`benchmarks/requirements.txt`) is told so and left out. A client that fails ends the benchmark.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

STEPS: Final = 10
RECORDS: Final = 64
BATCH: Final = 16
RATE: Final = 0.1
Timed = Callable[[], float]


class Net(nn.Sequential):
    """The network, with what pfl asks of one."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2))

    def loss(self, inputs: Tensor, targets: Tensor, is_eval: bool = False) -> Tensor:  # noqa: ARG002 - pfl's
        """Return the mean loss."""
        return nn.functional.cross_entropy(self(inputs), targets)

    def metrics(self, inputs: Tensor, targets: Tensor) -> Mapping[str, Any]:  # noqa: ARG002 - pfl's
        """Return no figure: nothing is evaluated."""
        return {}


def records_of(silo: int) -> tuple[Tensor, Tensor]:
    """Return a silo's records."""
    generator = torch.Generator().manual_seed(silo)
    x_N = torch.randn(RECORDS, 10, generator=generator)
    return x_N, (x_N[:, 0] > 0).long()


def cpu_s() -> float:
    """Return the CPU seconds of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def train(module: Net, silo: int) -> None:
    """Train a silo's model: what every peer does in its own frame."""
    optimizer = torch.optim.SGD(module.parameters(), lr=RATE)
    x_N, y_N = records_of(silo)
    for step in range(STEPS):
        lot = torch.arange(step * BATCH, (step + 1) * BATCH) % RECORDS
        optimizer.zero_grad()
        module.loss(x_N[lot], y_N[lot]).backward()
        optimizer.step()


def plain_loop(silos: int, rounds: int) -> list[float]:
    """Return the seconds of each round of one silo after the other, and a mean."""
    module, seconds = Net(), []
    for _ in range(rounds):
        started = time.monotonic()
        begun = {name: value.clone() for name, value in module.state_dict().items()}
        total = {name: torch.zeros_like(value) for name, value in begun.items()}
        for silo in range(silos):
            module.load_state_dict(begun)
            train(module, silo)
            for name, value in module.state_dict().items():
                total[name] += value / silos
        module.load_state_dict(total)
        seconds.append(time.monotonic() - started)
    return seconds


def pfl(silos: int, rounds: int) -> list[float]:
    """Return the seconds of each central iteration of pfl's simulated backend, in this process."""
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.callback.base import TrainingProcessCallback
    from pfl.data.dataset import Dataset
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.data.sampling import MinimizeReuseUserSampler
    from pfl.hyperparam.base import NNTrainHyperParams
    from pfl.model.pytorch import PyTorchModel

    module, ends = Net(), [time.monotonic()]

    class Clock(TrainingProcessCallback):
        def after_central_iteration(self, *_: Any, **__: Any) -> tuple[bool, Any]:
            from pfl.metrics import Metrics

            ends.append(time.monotonic())
            return False, Metrics()

    def dataset(silo: int) -> Dataset:
        return Dataset(raw_data=list(records_of(silo)), user_id=str(silo))

    sampler = MinimizeReuseUserSampler(list(range(silos)))
    users = FederatedDataset(dataset, sampler)
    central = torch.optim.SGD(module.parameters(), lr=1.0)
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=rounds, evaluation_frequency=rounds + 1, train_cohort_size=silos, val_cohort_size=0
        ),
        backend=SimulatedBackend(users, users),
        model=PyTorchModel(module, local_optimizer_create=torch.optim.SGD, central_optimizer=central),
        # Four batches are an epoch: as many steps as the others take, but for two.
        model_train_params=NNTrainHyperParams(local_num_epochs=3, local_learning_rate=RATE, local_batch_size=BATCH),
        model_eval_params=None,
        callbacks=[Clock()],
        send_metrics_to_platform=False,
    )
    return [after - before for before, after in itertools.pairwise(ends)]


def flower(silos: int, rounds: int) -> list[float]:
    """Return the seconds of each round of Flower's simulation under Ray, a client for each silo."""
    from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp
    from flwr.serverapp.strategy import FedAvg
    from flwr.simulation import run_simulation

    client, server, ends = ClientApp(), ServerApp(), list[float]()

    @client.train()
    def answer(message: Message, context: Context) -> Message:
        module = Net()
        module.load_state_dict(message.content["arrays"].to_torch_state_dict())
        train(module, int(context.node_config["partition-id"]))
        told = MetricRecord({"num-examples": RECORDS})
        return Message(RecordDict({"arrays": ArrayRecord(module.state_dict()), "metrics": told}), reply_to=message)

    class Clock(FedAvg):
        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            found = list(replies)
            assert len(found) == silos
            assert not any(one.has_error() for one in found)
            merged = super().aggregate_train(server_round, found)
            ends.append(time.monotonic())
            return merged

    @server.main()
    def main(grid: Grid, _: Context) -> None:
        ends.append(time.monotonic())
        strategy = Clock(fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=silos, min_available_nodes=silos)
        strategy.start(grid, ArrayRecord(Net().state_dict()), num_rounds=rounds, train_config=ConfigRecord())

    run_simulation(server, client, num_supernodes=silos, backend_config={"client_resources": {"num_cpus": 1}})
    return [after - before for before, after in itertools.pairwise(ends)]


PEERS: Final[Mapping[str, tuple[Callable[[int, int], list[float]], tuple[str, ...]]]] = {
    "plain-loop": (plain_loop, ()),
    "pfl": (pfl, ("pfl", "multiprocess")),
    "flower": (flower, ("ray",)),
}


@contextmanager
def one_thread() -> Iterator[None]:
    """Have torch compute in one thread, as each silo does in every simulator."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def measured(name: str, silos: int, rounds: int) -> dict[str, float | int | str]:
    """Return what a round of a peer took."""
    np.random.seed(0)  # noqa: NPY002 - pfl draws from it
    with one_thread():
        before = cpu_s()
        seconds = PEERS[name][0](silos, rounds)
    cpu = (cpu_s() - before) / rounds
    return {"peer": name, "silos": silos, "seconds": round(statistics.median(seconds[1:]), 3), "cpu_s": round(cpu, 3)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--silos", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if asked.rounds < 2:
        parser.error("two rounds at least: what is told is of rounds after the first")
    for silos in asked.silos:
        for name in asked.peers:
            missing = [one for one in PEERS[name][1] if importlib.util.find_spec(one) is None]
            if missing:
                print(f"{name}: not run: {', '.join(missing)} is not installed (benchmarks/requirements.txt)")
                continue
            row = measured(name, silos, asked.rounds)
            told = f"{name}, {silos} silos: {row['seconds']} s a round, {row['cpu_s']} s of CPU"
            print(json.dumps(row) if asked.json else told, flush=True)


if __name__ == "__main__":
    main()
