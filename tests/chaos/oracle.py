"""What answers and runs have said, held against each other at once and against PostgreSQL itself at the end."""

from __future__ import annotations

import traceback
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from chaos.numbered import SWITCHED, NumberedCatalog
from modelcatalog.v1.model_pb2 import Model
from modelcatalog.v1.refresh_pb2 import RefreshStatus
from replicas import assert_consistent, kept_events
from small_catalog import fetch


class Truth(NamedTuple):
    """What a revision holds: of which documents its models are, and whether the switched provider is shown."""

    first_number: int
    last_number: int
    models: int
    shown: bool


@dataclass
class Oracle:
    """Takes down every claim. The lists are what was found to be wrong, in words.

    Attributes:
        wrong: Answers that are none of the revision that they name.
        backwards: Answers of a process that are older than one it gave before.
        lost: Commits that were told of and are not there.
        gaps: Watches that missed an event or an end, or got one twice.
    """

    catalog: NumberedCatalog
    checked: int = 0
    told_commits: int = 0
    watched: int = 0
    wrong: list[str] = field(default_factory=list)
    backwards: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    _numbers: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    _shown: dict[int, set[bool]] = field(default_factory=lambda: defaultdict(set))
    _runs: dict[int, int] = field(default_factory=dict)
    _switches: list[tuple[int, bool]] = field(default_factory=list)
    _newest: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _told: list[tuple[str, list[RefreshStatus]]] = field(default_factory=list)

    # --- claims ---------------------------------------------------------------------------------------------------

    def note_models(self, revision: int, models: Iterable[Model]) -> None:
        """Take down the models of one answer."""
        self.checked += 1
        for model in models:
            number = self.catalog.number_of(model)
            if number is None:
                self.wrong.append(f"{model.id} costs {model.pricing.input} and {model.pricing.output} at {revision}")
            else:
                self._numbers[revision].add(number)

    def note_listing(self, revision: int, model_ids: Sequence[str]) -> None:
        """Take down a whole listing: it has every model once, but for a provider that is hidden."""
        shown = len(model_ids) == len(self.catalog.model_ids)
        if sorted(model_ids) != (self.catalog.model_ids if shown else self.catalog.always_listed):
            self.wrong.append(f"a listing at {revision} has {len(model_ids)} models, or has some twice")
        else:
            self._shown[revision].add(shown)

    def newest_of(self, process: str) -> int:
        """Return the newest revision that a process has answered with."""
        return self._newest[process]

    def note_revision(self, process: str, revision: int, *, asked_at: int) -> None:
        """Take down a revision that a process answered with, and which one it had reached when it was asked."""
        if revision < asked_at:
            self.backwards.append(f"{process} answered {revision} after {asked_at}")
        self._newest[process] = max(self._newest[process], revision)

    def note_run(self, revision: int, number: int) -> None:
        """Take down a run of this document that succeeded with a revision."""
        self.told_commits += 1
        self._runs[revision] = number

    def note_switch(self, revision: int, *, shown: bool) -> None:
        """Take down an UpdateProvider that was answered with OK."""
        self.told_commits += 1
        self._switches.append((revision, shown))

    def note_watch(self, refresh_id: str, told: list[RefreshStatus]) -> None:
        """Take down all that a watch on one run got."""
        self.watched += 1
        self._told.append((refresh_id, told))

    @property
    def watched_runs(self) -> set[str]:
        """The runs that a watch of their own was on."""
        return {refresh_id for refresh_id, _ in self._told}

    # --- the truth ------------------------------------------------------------------------------------------------

    async def judge(self, database_url: str, everything: Sequence[RefreshStatus]) -> None:
        """Hold all claims against PostgreSQL, and ``everything``, what the watch on all runs got."""
        try:
            await assert_consistent(database_url)
        except AssertionError as error:
            (*_, place) = traceback.extract_tb(error.__traceback__)
            self.wrong.append(f"history and catalog do not say the same: {place.line} {error}")
        truth = await _read_truth(database_url)
        self.judge_answers(truth)
        self.judge_commits(truth)
        for refresh_id, told in self._told:
            await self._judge_watch(database_url, refresh_id, told)
        await self._judge_watch_on_all(database_url, everything)

    def judge_answers(self, truth: Mapping[int, Truth]) -> None:
        """Hold the answers against what the revisions hold, and those against one another."""
        for revision, known in truth.items():
            if known.first_number != known.last_number or known.models != len(self.catalog.model_ids):
                self.wrong.append(f"revision {revision} is of several documents: {known}")
        for (_, before), (revision, after) in pairwise(sorted(truth.items())):
            if after.first_number < before.first_number:
                self.wrong.append(f"revision {revision} went back to document {after.first_number}")
        for revision, numbers in self._numbers.items():
            if revision not in truth or numbers != {truth[revision].first_number}:
                self.wrong.append(f"answers at {revision} were of {numbers}, it is {truth.get(revision)}")
        for revision, shown in self._shown.items():
            if revision not in truth or shown != {truth[revision].shown}:
                self.wrong.append(f"listings at {revision} showed {SWITCHED}: {shown}, it is {truth.get(revision)}")

    def judge_commits(self, truth: Mapping[int, Truth]) -> None:
        """Look for all commits that were told of."""
        for revision, number in self._runs.items():
            if revision not in truth or truth[revision].first_number != number:
                self.lost.append(f"document {number} was committed as {revision}, it is {truth.get(revision)}")
        for revision, shown in self._switches:
            if revision not in truth or truth[revision].shown != shown:
                self.lost.append(f"{SWITCHED} was shown ({shown}) as of {revision}, it is {truth.get(revision)}")

    async def _judge_watch(self, database_url: str, refresh_id: str, told: Sequence[RefreshStatus]) -> None:
        first, *events = told
        got = [event for event in map(_sequence_and_kind, events) if event[1] != "PROGRESS"]
        kept = await kept_events(database_url, refresh_id)
        if first.kind != RefreshStatus.KIND_SNAPSHOT or got != [each for each in kept if each[0] > first.sequence]:
            self.gaps.append(f"watch on {refresh_id}: got {got} of {kept} after {first.sequence}")

    async def _judge_watch_on_all(self, database_url: str, everything: Sequence[RefreshStatus]) -> None:
        """Of every run that began while it watched, it got every event in order."""
        got: dict[str, list[tuple[int, str]]] = defaultdict(list)
        for status in everything:
            if status.kind in (RefreshStatus.KIND_STATE, RefreshStatus.KIND_TERMINAL):
                got[status.refresh_id].append(_sequence_and_kind(status))
        for refresh_id in [refresh_id for refresh_id, _ in self._told]:
            if got[refresh_id] != (kept := await kept_events(database_url, refresh_id)):
                self.gaps.append(f"the watch on all runs got {got[refresh_id]} of {kept} of {refresh_id}")


def _sequence_and_kind(status: RefreshStatus) -> tuple[int, str]:
    return status.sequence, RefreshStatus.Kind.Name(status.kind).removeprefix("KIND_")


async def _read_truth(database_url: str) -> dict[int, Truth]:
    rows = await fetch(
        database_url,
        "SELECT r.revision, min(m.pricing_output)::int, max(m.pricing_output)::int, count(*)::int, bool_and(p.enabled)"
        " FROM catalog_revisions AS r"
        " JOIN model_versions AS m ON m.revision <= r.revision AND coalesce(m.valid_to_revision > r.revision, true)"
        " JOIN provider_versions AS p ON p.id = %s"
        "  AND p.revision <= r.revision AND coalesce(p.valid_to_revision > r.revision, true)"
        " WHERE m.removed_at IS NULL GROUP BY r.revision",
        SWITCHED,
    )
    return {revision: Truth(*known) for revision, *known in rows}
