"""What tests draw at random: the same in each run of the suite, so that what fails was changed and not only drawn.

``make security``, ``make fuzz-filter``, ``make test-kill`` and ``make chaos`` draw anew each time, and print what
repeats it.
"""

from __future__ import annotations

import os

_OF_THE_SUITE = 20260702


def seed_of(name: str) -> int:
    """Return the seed that this variable of the environment has, else the suite's."""
    return int(os.environ.get(name, _OF_THE_SUITE))
