"""A model that cannot be private is refused in one line, by the layer's name and with what to put in its place."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from fedmodel.config import builtin_scenarios, read_scenario
from fedmodel.errors import ConfigError, PrivacyError
from fedmodel.kinds import own_code
from fedmodel.kinds.layers import Dropout
from fedmodel.kinds.models.own import OwnConfig
from fedmodel.kinds.shape import ArrayShape, DataShape
from fedmodel.learning.gradients import KINDS, kind
from fedmodel.learning.refusals import check_model, check_module
from fedmodel.learning.tasks import RecordLoss, task_of
from fedmodel.learning.tasks.classification import cross_entropy
from scenarios.simulation.simulate import check_scenario
from tests.fedmodel.learning.test_dp_sgd import FLAT, clipped

CROSS_ENTROPY: RecordLoss = cross_entropy
Sequential, Linear = nn.Sequential, nn.Linear


def check(
    make: Callable[[], nn.Module],
    shape: DataShape = FLAT,
    losses: RecordLoss = CROSS_ENTROPY,
    gradients: str = "per-sample",
) -> None:
    def build(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return make()

    with torch.random.fork_rng():
        check_module(build, losses, shape, None if gradients == "auto" else kind(gradients))


def plain() -> nn.Module:
    return Sequential(Linear(6, 8), nn.GELU(), Linear(8, 1))


class Own(nn.Module):
    """A model whose hidden layer a test writes anew."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = Linear(6, 8), Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.hidden(torch.relu(self.into(x))))  # type: ignore[no-any-return]

    def hidden(self, h: Tensor) -> Tensor:
        return h


class LessTheMean(Own):
    def hidden(self, h: Tensor) -> Tensor:
        return h - h.mean(dim=0)


class Counting(Own):
    passes = 0

    def hidden(self, h: Tensor) -> Tensor:
        self.passes += 1
        return h * self.passes


class ClampingItsWeights(Own):
    def hidden(self, h: Tensor) -> Tensor:
        self.into.weight.data.clamp_(-9.0, 9.0)  # where all are already: seen by what torch counts, and by values
        with torch.no_grad():
            self.into.weight.clamp_(-9.0, 9.0)
        return h


class KeepingTheFirst(Own):
    """Keeps what it was given first of all, so that the same records twice show nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.first: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.first.append(x.detach())
        return super().forward(x) + self.first[0].sum()


class AddingToItsOwn(Own):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).exp().add_(1).log()


class CountingInABuffer(Own):
    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))

    def hidden(self, h: Tensor) -> Tensor:
        self.seen += len(h)
        return h


class Dropping(Own):
    def hidden(self, h: Tensor) -> Tensor:
        return functional.dropout(h, 0.5)


class Adding(Own):
    def forward(self, x: Tensor) -> Tensor:
        h = self.into(x)
        h += 1
        return self.out(h)  # type: ignore[no-any-return]


class AddingToRecords(Own):
    def forward(self, x: Tensor) -> Tensor:
        x += 1
        return self.out(self.into(x))  # type: ignore[no-any-return]


class WritingBehindTorch(Own):
    def forward(self, x: Tensor) -> Tensor:
        x.numpy()[:] = 0
        return self.out(self.into(x))  # type: ignore[no-any-return]


class LogOf(nn.Module):
    def forward(self, h: Tensor) -> Tensor:
        return h.log()


class Unused(Own):
    def __init__(self) -> None:
        super().__init__()
        self.left = Linear(3, 3)


class Failing(Own):
    def hidden(self, h: Tensor) -> Tensor:
        raise KeyError("no such\nthing")


class MakingNan(Own):
    def hidden(self, h: Tensor) -> Tensor:
        return h * float("nan")


class Ending(Own):
    def hidden(self, h: Tensor) -> Tensor:
        raise SystemExit(0)


class Outside(Own):
    """Uses the first layer's weights by themselves too."""

    def hidden(self, h: Tensor) -> Tensor:
        return functional.linear(functional.linear(h, self.into.weight.T), self.into.weight)


class HalfBlind(Own):
    """Calls the first layer where torch sees it, and where it does not."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            unseen = self.into(x)
        return self.out(torch.relu(self.into(x) + unseen))  # type: ignore[no-any-return]


class Positions(Own):
    """Adds a table of its own."""

    table: Tensor

    def __init__(self, table: Tensor, rate: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("table", table)
        self.drop = Dropout(rate)

    def hidden(self, h: Tensor) -> Tensor:
        return h + self.drop(self.table[None])  # type: ignore[no-any-return]


class Frozen(Own):
    def __init__(self, value: float | None) -> None:
        super().__init__()
        self.into.requires_grad_(False)
        if value is not None:
            nn.init.constant_(self.into.weight, value)
            nn.init.constant_(self.into.bias, value)


class Scaled(Own):
    """Has a parameter that is in no layer."""

    def __init__(self, buffer: bool) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(8))
        if buffer:
            self.register_buffer("shift", torch.arange(8.0))

    def hidden(self, h: Tensor) -> Tensor:
        return h * self.scale


class Recurrent(nn.Module):
    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.cells = nn.LSTM(1, 4, num_layers=2, dropout=dropout, batch_first=True)
        self.out = Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.cells(x[:, :, None])[0][:, -1])  # type: ignore[no-any-return]


class Attending(nn.Module):
    """A transformer that looks back alone."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
        self.into, self.blocks, self.out = Linear(1, 4), nn.TransformerEncoder(layer, 1), Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        return self.out(self.blocks(self.into(x[:, :, None]), mask=mask, is_causal=True)[:, -1])  # type: ignore[no-any-return]


REFUSED: list[tuple[Callable[[], nn.Module], str]] = [
    (
        lambda: Sequential(Linear(6, 8), nn.BatchNorm1d(8), Linear(8, 1)),
        r"the layer '1' \(BatchNorm1d\) keeps '1.running_mean' .* as records pass, .*; put GroupNorm in its place",
    ),
    (
        lambda: Sequential(Linear(6, 8), nn.BatchNorm1d(8, track_running_stats=False), Linear(8, 1)),
        r"the layer '1' \(BatchNorm1d\) couples records: .*; put GroupNorm in its place; fedmodel.fix\(model\) does it",
    ),
    (LessTheMean, r"the model's own code \(LessTheMean\) couples records: .*; compute each record by itself"),
    (
        lambda: Sequential(Linear(6, 8), LessTheMean(), nn.Sigmoid()),
        "failed on 5 made-up records",  # of another shape: the layer inside of it is named
    ),
    (
        lambda: Sequential(Linear(6, 6), LessTheMean()),
        r"the layer '1' \(LessTheMean\) couples records",
    ),
    (Counting, r"own code \(Counting\) keeps something from one pass to the next"),
    (KeepingTheFirst, r"\(KeepingTheFirst\) keeps something .* gave another output after others had been there; comp"),
    (AddingToItsOwn, r"own code \(AddingToItsOwn\) changes in place .*, or it itself, .*; write x = x \+ y for x"),
    (CountingInABuffer, r"keeps 'seen' outside the trained parameters and changes it as records pass"),
    (ClampingItsWeights, r"'into' \(Linear\) writes into the parameter 'into.weight' as records pass, .*; compute"),
    (Dropping, r"own code \(Dropping\) draws from torch's generator, which can be guessed; take dropout from"),
    (partial(Recurrent, 0.5), r"'cells' \(LSTM\) draws from torch's generator.*; set its dropout to 0; fedmodel.fix"),
    (
        lambda: Sequential(Linear(6, 8), nn.Dropout(0.5), Linear(8, 1)),
        r"the layer '1' \(Dropout\) takes its masks from torch's .*; put fedmodel.kinds.layers.Dropout in its place",
    ),
    (
        lambda: Sequential(Linear(6, 8), nn.AlphaDropout(0.5), Linear(8, 1)),
        r"the layer '1' \(AlphaDropout\) takes .*; put fedmodel.kinds.layers.Dropout in its place, or take it out$",
    ),
    (
        lambda: Sequential(Linear(6, 8), nn.ReLU(inplace=True), Linear(8, 1)),
        r"the layer '1' \(ReLU\) changes in place what another layer made, .*; set inplace = False; fedmodel.fix",
    ),
    (Adding, r"the model's own code \(Adding\) changes in place .*; write x = x \+ y for x \+= y"),
    (AddingToRecords, r"own code \(AddingToRecords\) changes the records that .* in place, .*; write x = x \+ y for x"),
    (WritingBehindTorch, r"own code \(WritingBehindTorch\) changes the records that the model is given in place"),
    (
        lambda: Sequential(nn.Flatten(), nn.ReLU(inplace=True), Linear(6, 1)),  # of which a view is changed
        r"the layer '1' \(ReLU\) changes the records .*; set inplace = False; fedmodel.fix",
    ),
    (Unused, r"the parameter 'left.weight' and 1 more gets no gradient from the loss; take it out .* or freeze it"),
    (Failing, r"\(Failing\) failed on 5 made-up records of the data's shape, \(5, 6\): KeyError: 'no such.*thing'$"),
    (MakingNan, r"own code \(MakingNan\) makes NaN of made-up records as any may be, .*; bound what is divided by"),
    (lambda: Sequential(Linear(6, 6), LogOf(), Linear(6, 1)), r"the layer '1' \(LogOf\) makes NaN of made-up records"),
    (Ending, r"\(Ending\) failed on 5 made-up records .*: RuntimeError: its code asked the process to end$"),
    (lambda: Sequential(Linear(7, 8), Linear(8, 1)), r"the layer '0' \(Linear\) failed on .*, \(5, 6\): RuntimeError"),
    (lambda: Sequential(Linear(6, 3)), r"returned outputs of shape \(5, 3\) for 5 records; wanted is \(5, 1\), one"),
    (lambda: Sequential(Linear(6, 1), nn.Flatten(0)), r"outputs of shape \(5,\) for 5 records; wanted is \(5, 1\)"),
    (
        lambda: Sequential(Linear(6, 1), nn.Unflatten(0, (1, 5))),
        r"outputs of shape \(1, 5, 1\) for 5 records; wanted is \(5, ...\), a row for each record",
    ),
    (lambda: plain().double(), r"the parameter '0.weight' is float64, .*; call .float\(\) on the model"),
    (lambda: plain().requires_grad_(False), "no parameter of the model is trainable"),
    (partial(Frozen, None), r"the frozen parameter 'into.weight' hangs on the seed that the model is built with"),
    (lambda: Positions(torch.randn(8)), r"the buffer 'table' hangs on the seed that the model is built with"),
    (lambda: Positions(torch.ones(8), 0.5), r"the layer 'drop' \(Dropout\) drops parts of what records share"),
    (
        lambda: Sequential(parametrizations.spectral_norm(Linear(6, 8)), Linear(8, 1)),
        r"\(_SpectralNorm\) keeps '0.parametrizations.weight.0._[uv]' .*; take spectral norm out; fedmodel.fix",
    ),
    (Outside, r"gradients of the parameter 'into.weight' do not add up .*; use it by calling its layer; set tr"),
    (partial(Scaled, True), r"the model has parameters of its own and a buffer in it, .*; set training.gradients ="),
    (Recurrent, r"records' gradients of the model cannot be computed \(.*; set training.gradients = .func"),
    (Attending, r"records' gradients of the model cannot be computed \(.*; set training.gradients = .func"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "words"), REFUSED)
def test_a_model_is_refused_in_one_line_that_names_the_layer(make: Callable[[], nn.Module], words: str) -> None:
    with pytest.raises(PrivacyError, match=words) as caught:
        check(make)
    assert "\n" not in str(caught.value)


def shared() -> nn.Module:
    first, second = Linear(6, 6), Linear(6, 6)
    second.weight = first.weight
    return Sequential(first, nn.Tanh(), second, nn.Tanh(), first, Linear(6, 1))


TAKEN: list[Callable[[], nn.Module]] = [
    plain,
    shared,
    HalfBlind,
    lambda: Linear(6, 2),  # a logit for each of two classes
    partial(Frozen, 0.1),
    lambda: Positions(torch.ones(8)),
    partial(Scaled, False),
    lambda: Sequential(Linear(6, 8), Dropout(0.5), Linear(8, 1)),
]


@pytest.mark.parametrize("make", TAKEN)
@pytest.mark.parametrize("gradients", KINDS)
def test_what_is_private_is_taken(make: Callable[[], nn.Module], gradients: str) -> None:
    check(make, gradients=gradients)


@pytest.mark.parametrize("make", [Outside, Recurrent, Attending, partial(Scaled, True)])
def test_what_a_refusal_sends_to_the_functional_kind_is_taken_by_it(make: Callable[[], nn.Module]) -> None:
    check(make, gradients="functional")


def test_a_norm_over_the_batch_that_its_model_holds_still_is_a_constant() -> None:
    """As in a network that was trained before, whose statistics are of other data and never move."""

    class Still(Own):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(8).requires_grad_(False)

        def train(self, mode: bool = True) -> Still:
            super().train(mode)
            self.norm.eval()
            return self

        def hidden(self, h: Tensor) -> Tensor:
            return self.norm(h)  # type: ignore[no-any-return]

    check(Still)


def shared_like(module: nn.Module) -> nn.Module:
    copied = shared()
    copied.load_state_dict(module.state_dict())
    return copied


@pytest.mark.parametrize("gradients", KINDS)
def test_a_record_counts_once_with_the_sum_over_all_uses_of_a_shared_parameter(gradients: str) -> None:
    torch.manual_seed(3)
    module, x, y = shared(), torch.randn(4, 6), torch.tensor([0, 1, 1, 0])
    parameters = list(module.parameters())
    expected = torch.zeros(sum(parameter.numel() for parameter in parameters), dtype=torch.float64)
    gradients_of = clipped(shared_like(module), clip=0.2, denominator=8, gradients_kind=gradients)
    for row in range(4):
        loss = CROSS_ENTROPY(module(x[row : row + 1]), y[row : row + 1]).sum()
        whole = torch.cat([one.flatten() for one in torch.autograd.grad(loss, parameters)]).double()
        expected += whole * min(1.0, gradients_of.clip / float(whole.norm()))
    found = gradients_of.flat(x, y)
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("losses", "words"),
    [
        (lambda o, y: CROSS_ENTROPY(o, y) / CROSS_ENTROPY(o, y).sum(), "training.loss couples records"),
        (lambda o, y: CROSS_ENTROPY(o, y).roll(1), "training.loss couples records"),
        (lambda o, y: CROSS_ENTROPY(o, y).mean(), r"gave a loss of shape \(\) for 5 records, where each .* \(5,\);"),
        (lambda o, y: CROSS_ENTROPY(o, y)[:, None], r"gave a loss of shape \(5, 1\) for 5 records"),
        (lambda o, y: CROSS_ENTROPY(o, y) * float("nan"), "training.loss is NaN for a model's outputs of"),
        (lambda o, y: CROSS_ENTROPY(o, y) / 0, "gradient of the parameter '0.weight' is NaN or infinite"),
        (lambda o, y: [1.0], "gave a loss of type list for 5 records"),
        (lambda o, y: functional.cross_entropy(o, y.float()), r"failed on outputs of shape \(5, 1\) and targets of"),
        (lambda o, y: CROSS_ENTROPY(o.detach(), y), "torch cannot differentiate the model's loss"),
    ],
)  # fmt: skip
def test_a_loss_that_is_none_of_each_record_alone_is_refused_as_the_loss(losses: RecordLoss, words: str) -> None:
    with pytest.raises(PrivacyError, match=words):
        check(plain, losses=losses)


@pytest.mark.parametrize(
    ("shape", "outputs", "words"),
    [
        (DataShape((6,), 3), 2, r"wanted is \(5, 3\), as 3 classes ask for"),
        (DataShape((6,), 0, target=ArrayShape(()), task="regression"), 2, r"wanted is \(5, 1\), as regression"),
        (DataShape((6,), 4, target=ArrayShape((4,), 2), task="multi-label"), 2, r"wanted is \(5, 4\), as multi-label"),
        (DataShape((6,), 9, target=ArrayShape((7,), 9), task="next-token"), 9, r"wanted is \(5, 7, 9\), as next-token"),
    ],
)  # fmt: skip
def test_outputs_of_another_shape_than_the_task_wants_are_refused(shape: DataShape, outputs: int, words: str) -> None:
    with pytest.raises(PrivacyError, match=words):
        check(lambda: Linear(6, outputs), shape, next(iter(task_of(shape).losses.values())))


def test_a_loss_of_ones_own_that_couples_records_is_refused_by_its_name() -> None:
    def centred(output: Tensor, target: Tensor) -> Tensor:
        found = (output[:, 0] - target) ** 2
        return found - found.mean()

    own_code.hand_over("script:centred", centred)
    scenario = read_scenario("quickstart", ["training.loss=script:centred"])
    with pytest.raises(PrivacyError, match=r"^training.loss = 'script:centred' couples records: the loss of a record"):
        check_scenario(scenario)


def test_a_loss_that_takes_outputs_of_another_shape_is_told_what_it_was_given_and_what_to_do() -> None:
    loss = nn.BCEWithLogitsLoss(reduction="none")
    own_code.hand_over("script:bare", lambda output, target: loss(output, target))
    own_code.hand_over("script:spread", lambda output, target: (output - target.float()) ** 2)
    own_code.hand_over("script:brought", lambda output, target: loss(output[:, 0], target.float()))
    given = (
        r" it was given outputs of shape \(5, 1\), float32, and targets of shape \(5,\), int64, made up: where it takes"
        r" others, give a function that .* such as lambda output, target: loss\(output\[:, 0\], target.float\(\)\)$"
    )
    for name, words in (("bare", r"raised ValueError in .*;"), ("spread", r"of shape \(5, 5\) .* bring them to one;")):
        with pytest.raises(PrivacyError, match=rf"^training.loss = 'script:{name}' .*{words}{given}") as refused:
            check_scenario(read_scenario("quickstart", [f"training.loss=script:{name}"]))
        assert "\n" not in str(refused.value)
    check_scenario(read_scenario("quickstart", ["training.loss=script:brought"]))


def test_a_model_of_ones_own_is_refused_by_its_name_and_its_layers() -> None:
    def net(width: int) -> nn.Module:
        return Sequential(Linear(10, width), nn.BatchNorm1d(width), Linear(width, 1))

    own_code.hand_over("script:net", net)
    model = OwnConfig(kind="own", use="script:net", width=4)  # type: ignore[call-arg]
    scenario = read_scenario("quickstart").model_copy(update={"model": model})
    with pytest.raises(PrivacyError, match=r"^model.use = 'script:net': the layer '1' \(BatchNorm1d\) keeps"):
        check_scenario(scenario)


def test_a_model_of_several_inputs_is_told_which_shapes_it_was_given() -> None:
    class Reading(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.out = nn.Embedding(11, 6), Linear(6, 1)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.out(self.words(tokens).mean(dim=1))  # type: ignore[no-any-return]

    shape = DataShape((), 2, inputs={"tokens": ArrayShape((4,), 11), "mask": ArrayShape((4,), 2)})
    with pytest.raises(PrivacyError, match=r"\{'tokens': \(5, 4\), 'mask': \(5, 4\)\}: TypeError.*'mask'"):
        check(Reading, shape)


def test_a_scenario_is_refused_before_anything_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = read_scenario("quickstart")
    found: list[nn.Module] = [Sequential(nn.Flatten(), Linear(10, 3), nn.BatchNorm1d(3))]
    monkeypatch.setattr(type(scenario.model), "build", lambda *_: found[0])
    with pytest.raises(PrivacyError, match=r"the layer '2' \(BatchNorm1d\) keeps '2.running_mean'"):
        check_scenario(scenario)
    found[0] = Sequential(nn.Flatten(), nn.LazyLinear(10))
    with pytest.raises(ConfigError, match=r"'1.weight' has no shape before the first records; say its layer's sizes"):
        check_scenario(scenario)


@pytest.mark.parametrize("name", sorted(builtin_scenarios()))
def test_shipped_scenarios_pass(name: str) -> None:
    check_model(read_scenario(name), torch.device("cpu"))


class Reading(nn.Module):
    """Takes words by their numbers as if they were amounts."""

    def __init__(self) -> None:
        super().__init__()
        self.out = Linear(4, 1)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.out(tokens)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("make", "shape", "words"),
    [
        (
            Reading,
            DataShape((), 2, inputs={"tokens": ArrayShape((4,), 11), "mask": ArrayShape((4,), 2)}),
            "tokens and mask of a record are of whole numbers",
        ),
        (lambda: Sequential(Linear(4, 1)), DataShape((4,), 2, below=11), "and records are of whole numbers"),
        (
            lambda: Sequential(nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 2, 3), nn.Flatten(), Linear(4, 1)),
            DataShape((4,), 2, below=11),
            r"the layer '1' \(Conv1d\) takes real numbers, and records are",
        ),
    ],
)
def test_whole_numbers_in_a_layer_of_real_ones_are_said_to_be(
    make: Callable[[], nn.Module], shape: DataShape, words: str
) -> None:
    with pytest.raises(PrivacyError, match=words) as caught:
        check(make, shape=shape)
    assert "put nn.Embedding before it where they stand for words or codes, or .float()" in str(caught.value)
    assert "dtype" not in str(caught.value)


def test_a_stray_label_is_thought_of_before_the_model_is_blamed() -> None:
    words = r"as 8 classes ask for\..*the largest label of the records; if the model is right"
    with pytest.raises(PrivacyError, match=words) as one:
        check(lambda: Sequential(Linear(6, 3)), shape=DataShape((6,), 8))
    assert "\n" not in str(one.value)
    named = DataShape((6,), 8, labels=tuple("abcdefgh"))
    with pytest.raises(PrivacyError, match=r"as classification asks for$"):  # who names classes has counted them
        check(lambda: Sequential(Linear(6, 3)), shape=named)
