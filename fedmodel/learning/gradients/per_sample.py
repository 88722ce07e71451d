"""The gradient of each record in memory, from Opacus's `GradSampleModule`; the clip, the cut and the sum are our own.

What "hooks" was called first: scenarios, summaries and reports from before name it so.
"""

from __future__ import annotations

from typing import Final

from fedmodel.learning.gradients import hooks

KIND: Final = hooks.KIND
