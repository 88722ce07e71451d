"""Models of several arrays: explained by each of them, as Captum explains them, in a run's report too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients
from numpy.typing import NDArray
from torch import Tensor, nn

from fedmodel.errors import ConfigError
from fedmodel.kinds import own_code
from fedmodel.learning.description import Description
from scenarios.cli.explain import _show
from scenarios.models.explain import Looked, explain, held_out, write
from scenarios.models.factors import factors
from scenarios.models.several import in_rows
from scenarios.models.trained import Trained, read_model
from scenarios.report import build
from scenarios.report.page.explained import drawn
from scenarios.report.page.render import render
from scenarios.simulation.prepared import prepare
from tests.scenarios.models.explained import described
from tests.scenarios.simulation.test_own_data import lay

SIZES: dict[str, tuple[int, ...]] = {"scan": (1, 3, 4), "age": (), "series": (5,)}


class Pair(nn.Module):
    """A model of an image, a number and a series, by names that are in another order than the arrays."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.image, self.rest = nn.Conv2d(1, 2, 2), nn.Linear(6, 4)
        self.out = nn.Linear(2 * 2 * 3 + 4, 1)

    def forward(self, series: Tensor, scan: Tensor, age: Tensor) -> Tensor:
        rest_B = torch.cat([series, age[:, None]], dim=1)
        return self.out(torch.cat([self.image(scan).flatten(1).tanh(), self.rest(rest_B).tanh()], dim=1))


def of_arrays(folder: Path, module: nn.Module | None = None, **more: dict[str, object]) -> Trained:
    plain = described(folder)
    inputs = {name: {"size": size} for name, size in SIZES.items()} | more
    document = plain.model_dump() | {"columns": (), "features": (), "shape": (), "inputs": inputs}
    return Trained(type(plain).model_validate(document), (module or Pair()).eval(), b"a model")


def arrays_of(count: int) -> dict[str, NDArray[np.float32]]:
    draw = np.random.default_rng(4)
    return {name: draw.normal(size=(count, *size)).astype(np.float32) for name, size in reversed(SIZES.items())}


def test_each_array_has_what_captum_adds_up_over_it(tmp_path: Path) -> None:
    model, x_N = of_arrays(tmp_path), arrays_of(30)
    found = explain(model, Looked(x_N, np.arange(30) % 2, "own"), least=1)
    named = {name: torch.from_numpy(one) for name, one in x_N.items()}

    def asked(*parts: Tensor) -> Tensor:
        return model.module(**dict(zip(named, parts, strict=True))).reshape(-1)

    theirs = IntegratedGradients(asked).attribute(
        tuple(named.values()), tuple(torch.zeros_like(one[:1]) for one in named.values()), n_steps=found.steps
    )
    (one,) = found.explained
    assert (found.method, one.scale, found.count, found.not_drawn) == ("integrated-gradients", "log-odds", 30, 0)
    assert {effect.name for effect in one.effects} == SIZES.keys()
    assert [effect.size for effect in one.effects] == sorted((effect.size for effect in one.effects), reverse=True)
    added = {name: part.detach().numpy().reshape(30, -1).sum(axis=1) for name, part in zip(named, theirs, strict=True)}
    for effect in one.effects:
        added_N = added[effect.name]
        assert effect.toward == pytest.approx(np.maximum(added_N, 0).mean(), abs=1e-5)
        assert effect.away == pytest.approx(np.maximum(-added_N, 0).mean(), abs=1e-5)
        assert effect.size > 0.005
    assert found.dependence == ()  # no range is declared of the single number either, and it may be in dollars
    assert found.no_groups == "no column has choices, and no public range of numbers is declared"
    words = " ".join(picture.description for picture in drawn(found))
    assert all(name in words for name in SIZES)


def test_an_array_alone_that_counts_is_the_one_that_is_named(tmp_path: Path) -> None:
    class Alone(nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def forward(self, **named: Tensor) -> Tensor:
            return named[self.name].flatten(1).sum(dim=1, keepdim=True) if self.name != "age" else named["age"][:, None]

    for name in SIZES:
        (one,) = explain(of_arrays(tmp_path, Alone(name)), Looked(arrays_of(20), None, "own")).explained
        assert [effect.name for effect in one.effects if effect.size > 1e-6] == [name]


def test_a_row_is_answered_as_its_arrays_are(tmp_path: Path) -> None:
    model, x_N = of_arrays(tmp_path), arrays_of(7)
    rowed, row_NF = in_rows(model, x_N)
    assert row_NF.shape == (7, 18)
    assert np.array_equal(row_NF[:, 12], x_N["age"])
    with torch.no_grad():
        right = model.module(**{name: torch.from_numpy(one) for name, one in x_N.items()})
        assert torch.equal(rowed.module(torch.from_numpy(row_NF)), right)


@pytest.mark.parametrize("count", [1, 3, 7])
def test_a_model_of_rows_gives_contiguous_arrays_as_a_batch_of_them_has(count: int, tmp_path: Path) -> None:
    given = dict[str, Tensor]()

    class Keeps(nn.Module):
        def forward(self, **named: Tensor) -> Tensor:
            given.update(named)
            return named["age"]

    x_N = arrays_of(count)
    rowed, row_NF = in_rows(of_arrays(tmp_path, Keeps()), x_N)
    rowed.module(torch.from_numpy(row_NF))
    assert given.keys() == SIZES.keys()
    for name, one in given.items():
        assert one.is_contiguous(), name
        assert np.array_equal(one.numpy(), x_N[name])


def test_records_are_parted_by_no_array_since_none_has_a_declared_range(tmp_path: Path) -> None:
    model, looked = of_arrays(tmp_path), Looked(arrays_of(30), np.arange(30) % 2, "own")
    without = "of which no public range is declared, so that it has no quarters"
    for name, told in (
        ("scan", f"scan is an array of 12 numbers, {without}"),
        ("age", f"age is a number, {without}"),
        ("nose", "unknown column 'nose'"),
    ):
        with pytest.raises(ConfigError, match=f"--by: {told}") as refused:
            explain(model, looked, (name,))
        assert "\n" not in str(refused.value)


def test_arrays_of_whole_numbers_and_records_of_other_arrays_are_refused_by_name(tmp_path: Path) -> None:
    tokens = of_arrays(tmp_path, tokens={"size": (3,), "below": 9})
    with pytest.raises(ConfigError, match="takes scan, age, series, tokens, and of tokens whole numbers, by which no"):
        explain(tokens, Looked(arrays_of(3), None, "own"))
    for x_N, names in (({"scan": arrays_of(3)["scan"]}, "scan"), (arrays_of(3)["series"], "one array")):
        with pytest.raises(ConfigError, match=f"takes scan, age, series, and these records are {names}$"):
            explain(of_arrays(tmp_path), Looked(x_N, None, "own"))


MODULE = """
import numpy as np
import torch
from torch import nn

RNG = np.random.default_rng(1)


def records():
    series, age = RNG.normal(size=(240, 5)).astype(np.float32), RNG.normal(size=240).astype(np.float32)
    return {"series": series, "age": age, "label": (series[:, 0] + age > 0).astype(int)}


class Both(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.out = nn.Linear(6, 4), nn.Linear(4, 1)

    def forward(self, age, series):
        return self.out(self.hidden(torch.cat([series, age[:, None]], dim=1)).tanh())
"""


@pytest.fixture
def _closed() -> Iterator[None]:
    yield
    own_code.close()


@pytest.mark.usefixtures("_closed")
def test_a_run_of_several_arrays_is_explained_in_its_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenario = lay(tmp_path, '[data]\nuse = "mine:records"\nheld_out = 0.25\n', MODULE)
    scenario.write_text(scenario.read_text().replace('kind = "mlp"', 'use = "mine:Both"'))
    prepared = prepare(scenario, ("rounds=1",), "in-process", "cpu", tmp_path / "run")
    with prepared.held() as folder:
        summary = prepared.run(folder, nullcontext())
    found = explain(read_model(folder), held_out(folder))
    assert {effect.name for effect in found.explained[0].effects} == {"series", "age"}
    assert found.figures["accuracy"] == summary["metrics"]["accuracy"]
    write(found, {}, folder, is_new=False)
    build.build(folder, render)
    assert build.verify(folder, None, render).report.training.explanation == found
    html = (folder / "report.html").read_text()
    assert 'id="plot-effects-1"' in html
    assert "series" in html
    assert "No curves were drawn: they go over public ranges" in html
    assert "over its public range" not in html
    _show(found, held_out(folder), [])
    assert "No curves: they go over public ranges" in capsys.readouterr().out


@pytest.mark.parametrize(("source", "kind"), [("mine", "array"), ("synthetic", "number")])
def test_features_of_a_users_own_function_have_no_range_and_those_on_board_are_scaled(
    source: str, kind: str, tmp_path: Path
) -> None:
    document = described(tmp_path).model_dump() | {"columns": (), "features": (), "shape": (2,), "source": source}
    found = factors(Description.model_validate(document))
    assert [(one.name, one.kind) for one in found] == [("feature 1", kind), ("feature 2", kind)]
