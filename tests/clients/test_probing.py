"""Canaries go through the very pipeline that trains, change nothing of the model, and see one clip each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from clients.policy import check_admitted
from clients.probing import Probing
from clients.silo import Silo
from fedmodel.audit.release_gauges import noise_grid
from fedmodel.canaries import observations
from fedmodel.canaries.probes import Block, Probed, ProbedLoss, bare, block_of, loss_canaries, with_probes
from fedmodel.config import AuditConfig, ConnectionConfig, Scenario, read_scenario
from fedmodel.data import silo_records
from fedmodel.errors import DataError, LedgerTampered, PolicyRefused
from fedmodel.kinds.augment import AugmentConfig
from fedmodel.kinds.shape import ArrayShape, DataShape
from fedmodel.learning.augmenting import augmenting
from fedmodel.learning.gradients import ClippedSum
from fedmodel.learning.inputs import Inputs, called
from fedmodel.learning.lengths import of_shape
from fedmodel.learning.models import build_model
from fedmodel.learning.preflight import preflight
from fedmodel.learning.tasks import RecordLoss
from fedmodel.learning.tasks.classification import cross_entropy
from fedmodel.learning.vectors import flatten
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent
from fedmodel.privacy.noise import SeededNoise
from fedmodel.provision.laws import law_of
from fedmodel.wire import TrainRequest
from tests.bases import scenario_on
from tests.fakes import checked, trained
from tests.fedmodel.learning.test_dp_sgd import clipped

pytestmark = pytest.mark.usefixtures("same_bytes")

CLIP = 0.7
EVENT = DpSgdEvent(2.0, CLIP, 1.0, 3, denominator=10)
COUNT = 12


def audited(scenario: Scenario, canaries: str = "probe", count: int = COUNT) -> Scenario:
    return scenario.model_copy(update={"audit": AuditConfig(canaries=canaries, count=count)})  # type: ignore[arg-type]


def request(scenario: Scenario, round_number: int = 1) -> TrainRequest:
    model, block = build_model(scenario.model, scenario.data.shape, 1), block_of(scenario)
    return TrainRequest(round_number, flatten(model if block is None else block.module(model)))


def clipped_sum(module: nn.Module) -> ClippedSum:
    losses: RecordLoss = cross_entropy
    if isinstance(module, Probed):
        losses = ProbedLoss(losses, module.canaries, CLIP)
    return clipped(module, losses=losses, clip=CLIP, physical=5)


def data(tiny: Scenario, coins: np.ndarray, copies: int = 1) -> tuple[Probed, Inputs, torch.Tensor]:
    module = Block(len(coins)).module(build_model(tiny.model, tiny.data.shape, 1))
    records = silo_records(tiny, "north")
    x, y = with_probes(torch.from_numpy(records.x_NF), torch.from_numpy(records.y_N), coins, copies)
    return module, x, y


@pytest.mark.parametrize("copies", [1, 3])
def test_a_canary_that_is_in_moves_its_coordinate_by_exactly_the_clip(tiny: Scenario, copies: int) -> None:
    coins = np.array([True, False, True, True, False])
    module, x, y = data(tiny, coins, copies)
    summed = clipped_sum(module).flat(x, y)
    block = summed[-len(coins) - 1 :].numpy()
    assert block[:-1] == pytest.approx(copies * CLIP * coins, rel=1e-6)
    # The record that is not a number adds nothing, and spoils nothing.
    assert block[-1] == 0.0


def test_a_canary_of_several_views_moves_its_coordinate_by_one_clip(tiny: Scenario) -> None:
    coins = np.array([True, False, True])
    module, x, y = data(tiny, coins)
    gradients = clipped_sum(module)
    gradients.views = 3
    augment = augmenting(AugmentConfig(noise=0.1, views=3), tiny.data.shape, SeededNoise(1))
    sums = gradients.of(x, y, np.arange(len(y)), augment)
    assert sums[-1][:-1, 0].numpy() == pytest.approx(CLIP * coins, rel=1e-6)


def test_before_the_clip_a_canary_is_far_over_it_and_one_record_is_not_a_number(tiny: Scenario) -> None:
    module, x, y = data(tiny, np.array([True, True, False, True]))
    loss = ProbedLoss(cross_entropy, module.canaries, CLIP)
    (slope,) = torch.autograd.grad(loss(called(module, x), y).sum(), [module.block.weight])
    assert slope[:-1, 0].tolist() == pytest.approx([10 * CLIP, 10 * CLIP, 0, 10 * CLIP])
    assert torch.isnan(slope[-1, 0])


def test_the_model_gets_the_very_sum_that_it_would_have_had(tiny: Scenario) -> None:
    coins = np.array([True, False, True, False])
    module, x, y = data(tiny, coins)
    with_canaries = clipped_sum(module).flat(x, y)
    model = build_model(tiny.model, tiny.data.shape, 1)  # Opacus's hooks stay in the other
    plain = clipped_sum(model)
    records = silo_records(tiny, "north")
    without = plain.flat(torch.from_numpy(records.x_NF), torch.from_numpy(records.y_N))
    assert float(without.abs().max()) > 0.1
    assert with_canaries[: len(without)].numpy() == pytest.approx(without.numpy(), abs=1e-6)


def test_a_probed_pipeline_passes_the_preflight(tiny: Scenario) -> None:
    module, _, _ = data(tiny, np.ones(4, dtype=bool))
    preflight(clipped_sum(module), tiny.data.shape, CLIP)


class Pair(nn.Module):
    """A model of two arrays, with a target of two real numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.out = nn.Embedding(7, 3), nn.Linear(3, 2)

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.out((self.words(tokens) * mask[:, :, None]).sum(dim=1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("target", ["negative labels", "real numbers"])
def test_a_target_of_any_sign_and_type_marks_no_canary(target: str, tiny: Scenario) -> None:
    """A record with a target that canaries were told by is learned from, and a canary is one all the same."""
    coins = np.array([True, False, True])
    generator = torch.Generator().manual_seed(1)
    tokens = {"tokens": torch.randint(7, (6, 4), generator=generator), "mask": torch.ones(6, 4)}
    if target == "real numbers":
        module, y = Probed(Pair(), 3), torch.full((6, 2), -1.0)
        losses: RecordLoss = lambda output, target: ((output - target) ** 2).sum(dim=1)  # noqa: E731
        x, size = with_probes(tokens, y, coins, 1)[0], sum(p.numel() for p in Pair().parameters())
    else:
        module, y = Probed(Pair(), 3), torch.tensor([-1, -2, -3, -4, -1, 5])
        losses = lambda output, target: (output.sum(dim=1) - target) ** 2  # noqa: E731
        x, size = with_probes(tokens, y, coins, 1)[0], sum(p.numel() for p in Pair().parameters())
    longer = with_probes(tokens, y, coins, 1)[1]
    assert longer.dtype == y.dtype
    assert torch.equal(longer[:6], y)
    found = clipped(module, losses=ProbedLoss(losses, 3, CLIP), clip=CLIP, physical=4)
    plain = clipped(bare_copy(module), losses=losses, clip=CLIP, physical=4)
    summed = found.flat(x, longer)
    assert torch.equal(summed[:size], plain.flat(tokens, y))
    assert summed[size:].numpy() == pytest.approx(CLIP * np.array([1, 0, 1, 0]), rel=1e-6)
    assert float(plain.flat(tokens, y)[:size].norm()) > CLIP


def bare_copy(module: Probed) -> nn.Module:
    copied = Pair()
    copied.load_state_dict(module.model.state_dict())
    return copied


@pytest.mark.parametrize("ignores", [False, True])
def test_canaries_of_an_audit_end_at_each_length_of_rows_in_turn(ignores: bool) -> None:
    inputs = {"tokens": ArrayShape((8,), 9), "mask": ArrayShape((8,), 2)}
    at_each = ArrayShape((8,), 9, ignores=True) if ignores else None
    lengths = of_shape((2, 4), DataShape((), 9, inputs=inputs, target=at_each))
    assert lengths is not None
    x_N = {name: torch.ones(3, 8, dtype=torch.long) for name in inputs}
    y_N = torch.zeros((3, 8) if ignores else 3, dtype=torch.long)
    coins = np.array([True, False, True, True, True, True])
    x, y = with_probes(x_N, y_N, coins, 2, lengths)
    assert isinstance(x, dict)
    assert x["canary"].tolist() == [0, 0, 0, 1, 1, 3, 3, 4, 4, 5, 5, 6, 6, 7]
    assert lengths.of(x, y).tolist() == [8, 8, 8, 2, 2, 8, 8, 2, 2, 4, 4, 8, 8, 2]
    assert torch.equal(y[:3], y_N)
    assert not bool(x["tokens"][3:].any())


def test_canaries_have_the_lengths_of_the_scenario(tmp_path: Path) -> None:
    path = scenario_on(tmp_path, model={"lengths": [3, 5]})
    scenario = read_scenario(str(path), ["audit.count=6"])
    observations.toss(tmp_path, 6)
    probing = Probing(Silo("north", scenario, "1", "cpu", tmp_path, tmp_path), TrainRequest(1, np.zeros(1, np.float32)))
    probing.begin(EVENT)
    x_N = {name: torch.ones(2, 8, dtype=torch.long) for name in ("tokens", "mask")}
    x, _ = probing.add(x_N, torch.zeros(2, dtype=torch.long))
    assert isinstance(x, dict)
    turn = (x["canary"][2:] - 1) % 3
    assert x["mask"].sum(dim=1).tolist() == [8, 8, *torch.tensor([3, 5, 8])[turn].tolist()]


def test_an_array_of_the_name_that_tells_canaries_is_refused() -> None:
    x = {"canary": torch.zeros(2, dtype=torch.int64)}
    with pytest.raises(DataError, match="is called 'canary'"):
        with_probes(x, torch.zeros(2), np.array([True]), 1)


def test_evaluation_sees_the_model_alone(tiny: Scenario) -> None:
    module, x, _ = data(tiny, np.ones(4, dtype=bool))
    nn.init.constant_(module.block.weight, 9.0)
    assert isinstance(x, dict)
    alone = x["features"]
    assert called(module.eval(), x).equal(bare(module)(alone))
    assert module(alone).equal(bare(module)(alone))
    output, block, marks = called(module.train(), x)
    assert output.equal(bare(module)(alone))
    assert block.shape == (len(alone), 5)
    assert marks[-5:].tolist() == [1, 2, 3, 4, 5]
    assert not marks[:-5].any()


def test_what_is_kept_is_what_was_released(tiny: Scenario, tmp_path: Path) -> None:
    """Two rounds: the sums are noise about a clip for those who are in, and the update is made of them."""
    scenario = audited(tiny, count=200)
    silo = Silo("north", scenario, "1", "cpu", tmp_path, tmp_path)
    committed = observations.toss(tmp_path, 200)
    assert observations.commitment(tmp_path) == committed
    for number in (1, 2):
        checked(silo, EVENT, request(scenario))
        update = trained(silo, EVENT, request(scenario, number))
    seen = observations.read_observations(tmp_path, "north")
    assert seen.coins_K.sum() not in (0, 200)
    assert seen.round_T.tolist() == [1, 1, 1, 2, 2, 2]
    assert seen.round_R.tolist() == [1, 2]
    assert seen.started_R[0] <= seen.started_R[1]
    records = len(silo_records(tiny, "north")) + int(seen.coins_K.sum()) + 1
    assert seen.records == records
    assert seen.lots_T.tolist() == [records] * 6
    assert seen.drawn_N.tolist() == [6] * records
    assert seen.update_RK[1] == pytest.approx(update[-201:-1])
    # Plain SGD: an update is the rate times the sum of noised gradients, which are the sums over the denominator.
    rate = tiny.training.learning_rate
    assert seen.update_RK[1] == pytest.approx(-rate * seen.sums_TK[3:].sum(axis=0) / 10, rel=1e-4, abs=1e-6)
    std = EVENT.noise_multiplier * CLIP
    inside, outside = seen.sums_TK[:, seen.coins_K], seen.sums_TK[:, ~seen.coins_K]
    assert abs(inside.mean() - CLIP) < 5 * std / np.sqrt(inside.size)
    assert abs(outside.mean()) < 5 * std / np.sqrt(outside.size)
    assert abs(outside.std() - std) < 5 * std / np.sqrt(2 * outside.size)
    assert abs(seen.poison_T).max() < 6 * std
    # Float32 divides by ten: what is seen is off by a sixteenth of a step of the grid at most, and by something.
    assert len(seen.off_grid_R) == 2
    assert 0 < seen.off_grid_R.max() <= 1 / 16


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_what_is_seen_is_the_release_and_not_what_pulls_back_to_the_model(
    optimizer: str, tiny_file: Path, tmp_path: Path
) -> None:
    """A pull a hundred times the noise is no noise, and explains the update with it."""
    rate = {"sgd": 0.01, "adam": 0.5}[optimizer]
    settings = [f"training.optimizer={optimizer}", f"training.learning_rate={rate}", "training.proximal=100.0"]
    scenario = audited(read_scenario(str(tiny_file), settings), count=200)
    observations.toss(tmp_path, 200)
    trained(Silo("north", scenario, "1", "cpu", tmp_path, tmp_path), EVENT, request(scenario))
    seen = observations.read_observations(tmp_path, "north")
    outside, std = seen.sums_TK[:, ~seen.coins_K], EVENT.noise_multiplier * CLIP
    assert abs(outside.std() - std) < 5 * std / np.sqrt(2 * outside.size)
    assert seen.off_grid_R.max() <= 1 / 16
    assert seen.unexplained_R.tolist() == [0.0]


def test_what_was_seen_before_there_was_a_grid_is_read_and_says_nothing_of_it(tiny: Scenario, tmp_path: Path) -> None:
    observations.toss(tmp_path, COUNT)
    trained(Silo("north", audited(tiny), "1", "cpu", tmp_path, tmp_path), EVENT, request(audited(tiny)))
    path = tmp_path / "audit" / "release-00001.npz"
    with np.load(path) as held:
        values = {name: held[name] for name in held if name != "off_grid"}
    np.savez(path, **values)
    seen = observations.read_observations(tmp_path, "north")
    assert len(seen.round_R) == 1
    assert len(seen.off_grid_R) == 0
    assert not list(noise_grid(seen))


def test_a_deployed_silo_takes_part_in_no_audited_run(tiny: Scenario) -> None:
    scenario = audited(tiny)
    law = law_of(scenario, "north", bytes(32))
    check_admitted(law, scenario)
    deployed = law.model_copy(update={"connection": ConnectionConfig(address="fl.example.org:9443")})
    with pytest.raises(PolicyRefused, match="is simulated; this silo is not"):
        check_admitted(deployed, scenario)


def test_coins_are_fair_tossed_once_and_committed_to(tmp_path: Path) -> None:
    committed = observations.toss(tmp_path, 10_000)
    tossed = observations.coins(tmp_path)
    assert tossed.shape == (10_000,)
    assert abs(tossed.mean() - 0.5) < 5 * 0.5 / 100
    with pytest.raises(FileExistsError):
        observations.toss(tmp_path, 10_000)
    path = tmp_path / "audit" / "coins"
    text = path.read_text()
    flipped = text.replace("01", "10", 1)
    path.write_text(flipped)
    assert observations.commitment(tmp_path) != committed
    path.write_text('{"coins": "01x"}')
    with pytest.raises(LedgerTampered, match="not as it was written"):
        observations.coins(tmp_path)


@pytest.mark.parametrize("harm", ["cut", "lost", "renamed"])
def test_what_was_seen_is_whole_or_refused(harm: str, tiny: Scenario, tmp_path: Path) -> None:
    scenario = audited(tiny)
    silo = Silo("north", scenario, "1", "cpu", tmp_path, tmp_path)
    observations.toss(tmp_path, COUNT)
    for number in (1, 2):
        trained(silo, EVENT, request(scenario, number))
    before = observations.observations_digest(tmp_path)
    first = tmp_path / "audit" / "release-00001.npz"
    match harm:
        case "cut":
            first.write_bytes(first.read_bytes()[:100])
            assert observations.observations_digest(tmp_path) != before
        case "lost":
            first.unlink()
        case "renamed":
            first.rename(first.with_name("release-00009.npz"))
    with pytest.raises(LedgerTampered):
        observations.read_observations(tmp_path, "north")


def test_loss_canaries_are_records_that_the_model_learns(tiny: Scenario, tmp_path: Path) -> None:
    scenario = audited(tiny, "loss", 6)
    made = loss_canaries(scenario, "north")
    assert (made.x_NF == loss_canaries(scenario, "north").x_NF).all()
    assert not (made.x_NF == loss_canaries(scenario, "south").x_NF).any()
    assert made.x_NF.shape == (6, *tiny.data.shape.features)
    assert abs(made.x_NF).max() <= 1
    silo = Silo("north", scenario, "1", "cpu", tmp_path, tmp_path)
    observations.toss(tmp_path, 6)
    update = trained(silo, EVENT, request(scenario))
    assert len(update) == len(flatten(build_model(tiny.model, tiny.data.shape, 1)))
    seen = observations.read_observations(tmp_path, "north")
    assert seen.records == len(silo_records(tiny, "north")) + int(seen.coins_K.sum())
    assert seen.sums_TK.shape == (3, 0)
    assert seen.update_RK.shape == (1, 0)


def test_a_scenario_says_its_canaries(tiny_file: Path) -> None:
    found = read_scenario(str(tiny_file), ["audit.count=9", "audit.canaries=loss"])
    assert found.audit == AuditConfig(canaries="loss", count=9)
    assert read_scenario(str(tiny_file)).audit is None
