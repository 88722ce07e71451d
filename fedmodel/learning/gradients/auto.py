"""The first of book-keeping, hooks, functional and one-by-one that is found to compute the gradients; the log names it.

Model, loss and the shape of records decide, so that whoever has these finds the same one. Whoever trains asks
`fedmodel.learning.choosing` which one that is; where nobody asks, it is the first.
"""

from __future__ import annotations

from typing import Final

from fedmodel.learning.gradients import book_keeping

ORDER: Final = ("book-keeping", "hooks", "functional", "one-by-one")
"""From the cheapest to the one that takes every model."""

KIND: Final = book_keeping.KIND
