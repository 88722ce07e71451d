"""Sentences that several mechanisms say of their events."""

from __future__ import annotations

from fedmodel.privacy.events import Event, clip_of


def clipped(event: Event, unit: str, what: str = "A gradient") -> str:
    """Say how a clip bounds what one unit can do, where `what` is what is clipped."""
    clip, most = clip_of(event), event.max_records
    several = f", and one {unit} by at most {most} times as much, {most * clip:g}" if most > 1 else ""
    return (
        f"{what} is clipped to an L2 norm of {clip:g}, so that one record moves a sum by at most that{several}."
        f" Neighbours differ by one {unit}, added or removed."
    )


def sampled(event: Event, gained: str) -> str:
    """Say how lots are drawn, and what that gains."""
    if event.sample_rate == 1:
        return "Every record is in every lot; nothing is gained by sampling."
    return (
        "Every record is in a lot with the declared probability, independently of all else (Poisson sampling);"
        f" {gained}."
    )
