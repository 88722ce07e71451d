"""The Wisconsin diagnostic breast-cancer set, as scikit-learn ships it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from fedmodel.kinds.first_sources import FirstSource
from fedmodel.kinds.shape import DataShape
from fedmodel.kinds.source import Dealt

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MEASURES = (
    "radius",
    "texture",
    "perimeter",
    "area",
    "smoothness",
    "compactness",
    "concavity",
    "concave points",
    "symmetry",
    "fractal dimension",
)
_FEATURES = (
    *(f"mean {measure}" for measure in _MEASURES),
    *(f"{measure} error" for measure in _MEASURES),
    *(f"worst {measure}" for measure in _MEASURES),
)


class BreastCancerConfig(FirstSource, Dealt):
    """569 masses, 30 features of each; malignant is the positive class."""

    source: Literal["breast-cancer"]

    @property
    def shape(self) -> DataShape:
        """Thirty named features, and two classes."""
        return DataShape((len(_FEATURES),), 2, _FEATURES, labels=("benign", "malignant"))

    @property
    def described(self) -> str:
        """Whose set it is."""
        return "569 masses of the Wisconsin diagnostic breast-cancer set, public, dealt out to silos"

    def why_no_persons(self) -> None:
        """Return None: each mass is of another patient."""

    def load(self, seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:  # noqa: ARG002 - they are what they are
        """Return the masses, in the set's order."""
        import numpy as np
        from sklearn import datasets

        bunch = datasets.load_breast_cancer()
        # scikit-learn labels benign 1; here the positive class is the one a doctor must not miss.
        return bunch.data, np.asarray(bunch.target == 0, dtype=np.int64)
