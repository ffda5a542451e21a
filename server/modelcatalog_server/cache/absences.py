"""That something does not exist, remembered for seconds."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

from modelcatalog_server.domain.errors import NotFoundError

#: Long enough to bear a caller that asks in a loop.
ABSENCE_TTL_S = 5.0
MAX_ABSENCES = 1000


class Absences:
    """NOT_FOUND answers of one version of the catalog, the oldest out first."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._errors: OrderedDict[Hashable, tuple[float, NotFoundError]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._errors)

    def get(self, key: Hashable) -> NotFoundError | None:
        """Return the error to raise again, ``None`` when it is not known that there is nothing."""
        known = self._errors.get(key)
        return known[1] if known is not None and known[0] > self._clock() else None

    def put(self, key: Hashable, error: NotFoundError) -> None:
        """Remember that there is nothing."""
        self._errors.pop(key, None)
        self._errors[key] = (self._clock() + ABSENCE_TTL_S, error.with_traceback(None))
        if len(self._errors) > MAX_ABSENCES:
            self._errors.popitem(last=False)

    def clear(self) -> None:
        """Forget all."""
        self._errors.clear()
