"""Putting another value in place of an attribute for a while, and taking it back, whatever happens meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from fedmodel.config.scenario import forget_plans
from fedmodel.learning.jobs._pipelines import forget_pipelines
from fedmodel.learning.jobs.training import _check_release_once
from fedmodel.privacy.accounting import calibrate_lots

Planted = AbstractContextManager[None]


@contextmanager
def replaced(owner: Any, name: str, value: object) -> Iterator[None]:
    """Put a value in place of an attribute of a module, a class or an object; what was there comes back.

    Raises:
        AttributeError: When there is no such attribute: what a fault was to be planted in is gone.
    """
    getattr(owner, name)
    is_own, before = name in vars(owner), vars(owner).get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if is_own:
            setattr(owner, name, before)
        else:
            delattr(owner, name)


@contextmanager
def fresh() -> Iterator[None]:
    """Forget what was found out about pipelines, noise and plans, before and after: a fault changes them."""
    _forget()
    try:
        yield
    finally:
        _forget()


def _forget() -> None:
    forget_pipelines()
    _check_release_once.cache_clear()
    calibrate_lots.cache_clear()
    forget_plans()


@contextmanager
def together(*planted: Callable[[], Planted]) -> Iterator[None]:
    """Plant several at once."""
    with ExitStack() as stack:
        for one in planted:
            stack.enter_context(one())
        yield
