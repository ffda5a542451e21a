"""Texts to records, one at a time, so that a bad one costs no other. What a document consists of is ``sift``'s to say.

The process that decodes imports this, and nothing that it has no need of.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
from msgspec import Struct

from modelcatalog_server.catalog.resolver.linking import LinkCandidate
from modelcatalog_server.domain.models import CanonicalRecord, ModelRecord, ProviderRecord, RecordKind
from modelcatalog_server.modelsdev import derive, wire


class Task(Struct, array_like=True, gc=False):
    """A text to decode.

    ``content_hash`` is that of the provider or canonical model that the catalog lists, empty where it lists none.
    ``candidates`` are what a served model may be linked to.
    """

    kind: RecordKind
    provider_id: str  # empty for a canonical model
    id: str  # as the key in the document has it
    text: bytes
    content_hash: str = ""
    candidates: tuple[LinkCandidate, ...] = ()


class BadRecord(Struct, array_like=True, gc=False):
    """A text that is no record, and why."""

    kind: RecordKind
    provider_id: str
    id: str
    reason: str


class Answer(Struct):
    """What became of tasks, in their order: all models, of the others what the catalog lists otherwise, and bad ones.

    A model that is what the catalog lists may still be encoded otherwise than it was.
    """

    providers: list[ProviderRecord] = []
    models: list[ModelRecord] = []
    canonical_models: list[CanonicalRecord] = []
    bad: list[BadRecord] = []


class BadIds(Struct):
    """Records that cannot be read, and what follows for others.

    The models of such a provider are passed over. Nothing is linked to such a canonical model that is new, for the
    catalog will not have it.
    """

    providers: set[str] = set()
    new_canonical_models: set[str] = set()


class RecordDecoder:
    """Decodes the tasks of one payload: canonical models first, each provider before its models.

    Another decoder can go on where this one stops, with the ``bad`` of this one.

    Args:
        full: Whether providers and canonical models that the catalog lists as they are, are wanted too.
    """

    def __init__(self, *, full: bool, bad: BadIds | None = None) -> None:
        self._full = full
        self.bad = bad or BadIds()

    def answer(self, tasks: Sequence[Task]) -> Answer:
        """Return what became of some tasks."""
        answer = Answer()
        for _ in self.steps(tasks, answer):
            pass
        return answer

    def steps(self, tasks: Sequence[Task], answer: Answer) -> Iterator[None]:
        """Decode into ``answer``, a step for each task."""
        for task in tasks:
            try:
                self._decode(task, answer)
            except wire.InvalidRecordError as error:
                self._remember(task)
                answer.bad.append(BadRecord(task.kind, task.provider_id, task.id, str(error)))
            yield

    def _remember(self, task: Task) -> None:
        if task.kind is RecordKind.PROVIDER:
            self.bad.providers.add(task.id)
        elif task.kind is RecordKind.CANONICAL_MODEL and not task.content_hash:
            self.bad.new_canonical_models.add(task.id)

    def _decode(self, task: Task, answer: Answer) -> None:
        match task.kind:
            case RecordKind.PROVIDER:
                provider = _provider(task)
                if self._is_wanted(task, provider):
                    answer.providers.append(provider)
            case RecordKind.CANONICAL_MODEL:
                canonical = _canonical_model(task)
                if self._is_wanted(task, canonical):
                    answer.canonical_models.append(canonical)
            case RecordKind.MODEL if task.provider_id not in self.bad.providers:
                answer.models.append(_model(task, self._good(task.candidates)))

    def _good(self, candidates: Sequence[LinkCandidate]) -> Sequence[LinkCandidate]:
        return [candidate for candidate in candidates if candidate.canonical_id not in self.bad.new_canonical_models]

    def _is_wanted(self, task: Task, record: ProviderRecord | CanonicalRecord) -> bool:
        return self._full or record.content_hash != task.content_hash


def _provider(task: Task) -> ProviderRecord:
    text = _text(task)
    return derive.provider_record(wire.read_shape(text.values, wire.Provider, task.id), text)


def _model(task: Task, candidates: Sequence[LinkCandidate]) -> ModelRecord:
    wire.check_id(task.id)
    text = _text(task)
    model = wire.read_shape(text.values, wire.ServedModel, task.id)
    return derive.model_record(model, text, task.provider_id, candidates)


def _canonical_model(task: Task) -> CanonicalRecord:
    wire.check_id(task.id)
    text = _text(task)
    model = wire.read_shape(text.values, wire.CanonicalModel, task.id)
    members = wire.read_object(task.text)
    benchmarks = msgspec.json.decode(members["benchmarks"], type=list[msgspec.Raw]) if model.benchmarks else []
    return derive.canonical_record(model, text, [bytes(benchmark) for benchmark in benchmarks])


def _text(task: Task) -> derive.Text:
    values = wire.read_values(task.text)
    return derive.Text(raw=task.text.decode(), values=values)
