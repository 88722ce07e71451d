"""The Gaussian trade-off curve is the integral that it stands for."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from fedmodel.audit.gdp import gdp_delta, gdp_epsilon


@pytest.mark.parametrize(("mu", "epsilon"), [(0.1, 0.2), (0.5, 1.0), (1.0, 0.0), (1.0, 4.0), (3.0, 2.0), (6.0, 30.0)])
def test_gdp_delta_is_the_integral_it_stands_for(mu: float, epsilon: float) -> None:
    start = epsilon / mu + mu / 2  # where one density is e^epsilon times the other
    delta, _ = integrate.quad(
        lambda x: stats.norm.pdf(x - mu) - math.exp(epsilon) * stats.norm.pdf(x), start, start + 40, epsabs=0, limit=200
    )
    assert gdp_delta(mu, epsilon) == pytest.approx(delta, rel=1e-6)


def test_gdp_at_its_ends() -> None:
    assert gdp_delta(0.0, 0.0) == 0.0
    assert gdp_delta(1e-3, 50.0) == 0.0
    assert gdp_delta(1e-300, 1.0) == 0.0
    assert gdp_delta(200.0, 800.0) == pytest.approx(1.0)
    assert gdp_delta(2.0, 0.0) == pytest.approx(math.erf(1 / math.sqrt(2)))
    assert gdp_epsilon(0.0, 1e-5) == 0.0
    assert gdp_epsilon(0.1, 0.5) == 0.0
    assert gdp_epsilon(100.0, 1e-5) == pytest.approx(5_000 + 100 * 4.2649, rel=1e-3)


@given(st.floats(1e-3, 60.0), st.floats(1e-12, 0.5))
def test_gdp_epsilon_inverts_gdp_delta(mu: float, delta: float) -> None:
    epsilon = gdp_epsilon(mu, delta)
    if epsilon == 0:
        assert gdp_delta(mu, 0.0) <= delta
    else:
        assert gdp_delta(mu, epsilon) == pytest.approx(delta, rel=1e-6)
        assert gdp_epsilon(mu, delta / 2) > epsilon
        assert gdp_epsilon(1.01 * mu, delta) > epsilon
