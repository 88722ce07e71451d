"""The first of book-keeping, hooks and functional that is found to compute the model's gradients; the log names it.

Model, loss and the shape of records decide, so that whoever has these finds the same one. Whoever trains asks
`fedmodel.learning.choosing` which one that is; where nobody asks, it is the first.
"""

from __future__ import annotations

from typing import Final

from fedmodel.learning.gradients import book_keeping

ORDER: Final = ("book-keeping", "hooks", "functional")
"""From the cheapest to the one that takes nearly every model."""

KIND: Final = book_keeping.KIND
