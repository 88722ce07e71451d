"""What `import fedmodel` offers to a script or a notebook: to simulate a federation, and to read what a run left.

`scenario` has a scenario as a script reads, edits, makes and writes it, `objects` what one is made from; `simulating`
and `auditing` run one, `run` is what it left, `frames` its figures as pandas has them; `shown` and `notebook` have what
a notebook shows.

A run from Python is the run of the command: the same checks, the same folder, the same ledgers and claims. `fedmodel`
names what is here, and imports it when it is asked for.

A process runs one federation at a time.
"""

import os

from fedmodel.system.environment import SWITCHES

os.environ.update(SWITCHES)  # before anything of Flower is imported
