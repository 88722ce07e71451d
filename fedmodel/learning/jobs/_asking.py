"""Training."""

from __future__ import annotations

from fedmodel.learning.jobs import Apply, State, Vector


class Asking:
    """Training at the server: a round asks about the model, and its mean moves it.

    Args:
        apply: What a mean does to the model.
    """

    def __init__(self, apply: Apply) -> None:
        self._apply = apply

    def question(self, _number: int, state: State) -> Vector:
        """Return the model."""
        return state.vector_P

    def fold(self, state: State, mean_P: Vector) -> State:
        """Return the model moved by the mean of the updates."""
        return State(*self._apply(state.vector_P, mean_P, state.kept))


asking = Asking
