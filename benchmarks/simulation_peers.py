"""What a round of many silos costs in other simulators: Flower under Ray, pfl, and plain loops, on the same work.

    python benchmarks/simulation_peers.py [--work network|cnn] [--silos 100 1000] [--peers plain-loop pfl flower ...]
                                          [--rounds 3] [--json]

`network`: 10, 64, 32 and 2 units, 64 records a silo, ten steps of plain SGD on 16 of them: what `benchmarks/stacked.py`
measures of this project without privacy. `cnn`: two convolutions with GroupNorm, 50 records of the shape of CIFAR's a
silo, five steps on 10 of them. No peer has privacy; this project's own rows are `fedmodel`, without it, and
`fedmodel-dp`, with record-level DP-SGD, on lots that are drawn and of those sizes on average.

Figures are the median seconds of a round after the first by the clock; and CPU seconds of a round, of this process and
of those that it started and that have ended: what a run of twice as many rounds takes more. A peer that is not
installed (`benchmarks/requirements.txt`) is told so and left out. A client that fails ends the benchmark.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

RATE: Final = 0.1


class Net(nn.Sequential):
    """A model, with what pfl asks of one.

    Attributes:
        records: Of a silo.
        batch: Of a step.
        epochs: Over a silo's records, as pfl counts.
        steps: Of a round.
    """

    records, batch, epochs, steps = 0, 0, 0, 0

    def loss(self, inputs: Tensor, targets: Tensor, is_eval: bool = False) -> Tensor:  # noqa: ARG002 - pfl's
        """Return the mean loss."""
        return nn.functional.cross_entropy(self(inputs), targets)

    def metrics(self, inputs: Tensor, targets: Tensor) -> Mapping[str, Any]:  # noqa: ARG002 - pfl's
        """Return no figure: nothing is evaluated."""
        return {}


class Network(Net):
    """Fully connected layers."""

    records, batch, epochs, steps = 64, 16, 3, 10  # pfl takes whole epochs, two steps more than the others

    def __init__(self) -> None:
        super().__init__(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2))

    @staticmethod
    def records_of(silo: int) -> tuple[Tensor, Tensor]:
        """Return a silo's records."""
        x_N = torch.randn(Network.records, 10, generator=torch.Generator().manual_seed(silo))
        return x_N, (x_N[:, 0] > 0).long()


class Cnn(Net):
    """Convolutions, as `kind = "cnn"` has them by default."""

    records, batch, epochs, steps = 50, 10, 1, 5

    def __init__(self) -> None:
        first = [nn.Conv2d(3, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.ReLU(), nn.MaxPool2d(2)]
        second = [nn.Conv2d(16, 32, 3, padding=1), nn.GroupNorm(4, 32), nn.ReLU(), nn.MaxPool2d(2)]
        super().__init__(*first, *second, nn.Flatten(), nn.Linear(2048, 10))

    @staticmethod
    def records_of(silo: int) -> tuple[Tensor, Tensor]:
        """Return a silo's records."""
        generator = torch.Generator().manual_seed(silo)
        y_N = torch.randint(10, (Cnn.records,), generator=generator)
        return torch.randn(Cnn.records, 3, 32, 32, generator=generator) + 0.1 * y_N[:, None, None, None], y_N


WORK: Final[Mapping[str, type[Any]]] = {"network": Network, "cnn": Cnn}


def cpu_s() -> float:
    """Return the CPU seconds of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def train(module: Net, silo: int) -> None:
    """Train a silo's model: what every peer does in its own frame."""
    optimizer = torch.optim.SGD(module.parameters(), lr=RATE)
    x_N, y_N = type(module).records_of(silo)  # type: ignore[attr-defined]
    for step in range(module.steps):
        lot = torch.arange(step * module.batch, (step + 1) * module.batch) % module.records
        optimizer.zero_grad()
        module.loss(x_N[lot], y_N[lot]).backward()
        optimizer.step()


def sum_over(given: tuple[type[Net], Mapping[str, Tensor], range]) -> dict[str, Tensor]:
    """Train some silos, one after the other, and return the sum of their models."""
    work, begun, silos = given
    torch.set_num_threads(1)
    module = work()
    total = {name: torch.zeros_like(value) for name, value in begun.items()}
    for silo in silos:
        module.load_state_dict(begun)
        train(module, silo)
        for name, value in module.state_dict().items():
            total[name] += value
    return total


def plain_loop(work: type[Net], silos: int, rounds: int, processes: int = 1) -> list[float]:
    """Return the seconds of each round of one silo after the other, and a mean, over some processes."""
    begun, seconds = {name: one.clone() for name, one in work().state_dict().items()}, []
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        for _ in range(rounds):
            started = time.monotonic()
            shares = [(work, begun, range(place, silos, processes)) for place in range(processes)]
            found = [sum_over(shares[0])] if processes == 1 else pool.map(sum_over, shares)
            begun = {name: sum(one[name] for one in found) / silos for name in begun}  # type: ignore[misc]
            seconds.append(time.monotonic() - started)
        pool.close()
        pool.join()
    return seconds


def plain_loop_2(work: type[Net], silos: int, rounds: int) -> list[float]:
    """Return the same over two processes."""
    return plain_loop(work, silos, rounds, processes=2)


def fedmodel(work: type[Net], silos: int, rounds: int, **privacy: object) -> list[float]:
    """Return the seconds of each round of this project's vectorised engine, without noise and clip."""
    import fedmodel as fm

    found = [tuple(one.numpy() for one in work.records_of(silo)) for silo in range(silos)]  # type: ignore[attr-defined]
    asked = privacy or {"baseline": "no-noise-no-clip"}
    settings = [f"privacy.{key}={value}" for key, value in asked.items()]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        fm.simulate(
            settings=settings,
            model=_as_kind(work),
            train=found,
            test=found[0],
            engine="vectorised",
            device="cpu",
            rounds=rounds,
            sample_rate=work.batch / work.records,
            expected_batch_size=work.batch,
            local_steps=work.steps,
            learning_rate=RATE,
            max_grad_norm=1.0,
            noise_multiplier=2.0,
            delta=1e-4,
            out=out,
            progress=False,
        )
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert all(line["summed"] == silos for line in lines)
    return [line["seconds"] for line in lines]


def fedmodel_dp(work: type[Net], silos: int, rounds: int) -> list[float]:
    """Return the same with record-level DP-SGD, by the operating system's noise."""
    return fedmodel(work, silos, rounds, noise='"os"')


def _as_kind(work: type[Net]) -> Callable[[], nn.Module]:
    """Return what makes the plain layers of a model."""
    return lambda: nn.Sequential(*work())


def pfl(work: type[Net], silos: int, rounds: int) -> list[float]:
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

    module, ends = work(), [time.monotonic()]

    class Clock(TrainingProcessCallback):
        def after_central_iteration(self, *_: Any, **__: Any) -> tuple[bool, Any]:
            from pfl.metrics import Metrics

            ends.append(time.monotonic())
            return False, Metrics()

    def dataset(silo: int) -> Dataset:
        return Dataset(raw_data=list(work.records_of(silo)), user_id=str(silo))  # type: ignore[attr-defined]

    sampler = MinimizeReuseUserSampler(list(range(silos)))
    users = FederatedDataset(dataset, sampler)
    central = torch.optim.SGD(module.parameters(), lr=1.0)
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=rounds, evaluation_frequency=rounds + 1, train_cohort_size=silos, val_cohort_size=0
        ),
        backend=SimulatedBackend(users, users),
        model=PyTorchModel(module, local_optimizer_create=torch.optim.SGD, central_optimizer=central),
        model_train_params=NNTrainHyperParams(
            local_num_epochs=work.epochs, local_learning_rate=RATE, local_batch_size=work.batch
        ),
        model_eval_params=None,
        callbacks=[Clock()],
        send_metrics_to_platform=False,
    )
    return [after - before for before, after in itertools.pairwise(ends)]


def flower(work: type[Net], silos: int, rounds: int) -> list[float]:
    """Return the seconds of each round of Flower's simulation under Ray, a client for each silo."""
    from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp
    from flwr.serverapp.strategy import FedAvg
    from flwr.simulation import run_simulation

    client, server, ends = ClientApp(), ServerApp(), list[float]()

    @client.train()
    def answer(message: Message, context: Context) -> Message:
        module = work()
        module.load_state_dict(message.content["arrays"].to_torch_state_dict())
        train(module, int(context.node_config["partition-id"]))
        told = MetricRecord({"num-examples": work.records})
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
        strategy.start(grid, ArrayRecord(work().state_dict()), num_rounds=rounds, train_config=ConfigRecord())

    run_simulation(server, client, num_supernodes=silos, backend_config={"client_resources": {"num_cpus": 1}})
    return [after - before for before, after in itertools.pairwise(ends)]


PEERS: Final[Mapping[str, tuple[Callable[[type[Net], int, int], list[float]], tuple[str, ...]]]] = {
    "plain-loop": (plain_loop, ()),
    "plain-loop-2": (plain_loop_2, ()),
    "fedmodel": (fedmodel, ("fedmodel",)),
    "fedmodel-dp": (fedmodel_dp, ("fedmodel",)),
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


def measured(name: str, work: str, silos: int, rounds: int) -> dict[str, float | int | str]:
    """Return what a round of a peer took."""
    np.random.seed(0)  # noqa: NPY002 - pfl draws from it
    marks, seconds = [cpu_s()], list[float]()
    with one_thread():
        for times in (1, 2):
            seconds += PEERS[name][0](WORK[work], silos, rounds * times)[1:]
            marks.append(cpu_s())
    cpu = (marks[2] - 2 * marks[1] + marks[0]) / rounds
    return {
        "peer": name,
        "work": work,
        "silos": silos,
        "seconds": round(statistics.median(seconds), 3),
        "cpu_s": round(cpu, 3),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--work", choices=list(WORK), default="network")
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
            row = measured(name, asked.work, silos, asked.rounds)
            told = f"{name}, {asked.work}, {silos} silos: {row['seconds']} s a round, {row['cpu_s']} s of CPU"
            print(json.dumps(row) if asked.json else told, flush=True)


if __name__ == "__main__":
    main()
