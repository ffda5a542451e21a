-- name: create_refresh
-- A run that was accepted. The database refuses a second active one.
INSERT INTO models_refresh_history (
    id, refresh_type, trigger, provider_id, requested_by, request_id, force, validate_only, override_gate,
    fallback_of, owner, status, started_at, heartbeat_at
)
VALUES (
    %(id)s, %(refresh_type)s, %(trigger)s, %(provider_id)s, %(requested_by)s, %(request_id)s, %(force)s,
    %(validate_only)s, %(override_gate)s, %(fallback_of)s, %(owner)s, 'PENDING', clock_timestamp(), clock_timestamp()
);

-- name: update_refresh
-- The run as it is now, with an event, in one round trip. No row comes back, and nothing is written, when the run is over
-- already, or was asked to stop and this is another end. What was not modified begins and ends with the revision of now.
WITH run AS (
    UPDATE models_refresh_history
    SET
        status = %(status)s,
        phase = %(phase)s,
        attempt = %(attempt)s,
        attempts = %(attempts)s,
        models_seen = %(models_seen)s,
        models_added = %(models_added)s,
        models_changed = %(models_changed)s,
        models_removed = %(models_removed)s,
        models_revived = %(models_revived)s,
        models_unchanged = %(models_unchanged)s,
        models_failed = %(models_failed)s,
        error_reason = %(error_reason)s,
        error_message = %(error_message)s,
        error_metadata = %(error_metadata)s,
        warnings = %(warnings)s,
        completed_at = CASE WHEN %(is_over)s THEN clock_timestamp() END,
        base_revision = CASE
            WHEN %(not_modified)s THEN (SELECT revision FROM catalog_state)
            ELSE %(base_revision)s
        END,
        result_revision = CASE
            WHEN %(not_modified)s THEN (SELECT revision FROM catalog_state)
            ELSE %(result_revision)s
        END,
        not_modified = %(not_modified)s,
        last_sequence = last_sequence + 1
    WHERE
        id = %(id)s
        AND (
            status IN ('PENDING', 'RUNNING')
            OR (status = 'CANCELLING' AND %(status)s IN ('CANCELLED', 'FAILED'))
        )
    RETURNING *
),

event AS (
    INSERT INTO refresh_events (refresh_id, sequence, kind, phase, done, total, message, refresh)
    SELECT
        run.id,
        run.last_sequence,
        %(kind)s,
        %(phase)s,
        %(done)s,
        %(total)s,
        %(message)s,
        to_jsonb(run)
    FROM run
    RETURNING id, refresh
)

SELECT
    event.refresh,
    pg_notify('modelcatalog', 'event:' || event.id) AS notified
FROM event;

-- name: lock_events
-- Held until commit, so that event ids become visible in their order.
SELECT pg_advisory_xact_lock(%(lock)s);

-- name: append_event
-- One event, with the history row as of now, and a nudge to whoever listens.
WITH run AS (
    UPDATE models_refresh_history
    SET last_sequence = last_sequence + 1
    WHERE id = %(refresh_id)s
    RETURNING *
),

event AS (
    INSERT INTO refresh_events (refresh_id, sequence, kind, phase, done, total, message, refresh)
    SELECT
        run.id,
        run.last_sequence,
        %(kind)s,
        %(phase)s,
        %(done)s,
        %(total)s,
        %(message)s,
        to_jsonb(run)
    FROM run
    RETURNING id, refresh
)

SELECT
    event.refresh,
    pg_notify('modelcatalog', 'event:' || event.id) AS notified
FROM event;

-- name: get_refresh
-- One run.
SELECT to_jsonb(h) AS refresh
FROM models_refresh_history AS h
WHERE h.id = %(refresh_id)s;

-- name: find_request
-- What a request id stands for.
SELECT
    r.joined,
    r.arguments,
    to_jsonb(h) AS refresh
FROM refresh_requests AS r
INNER JOIN models_refresh_history AS h ON h.id = r.refresh_id
WHERE r.request_id = %(request_id)s;

-- name: remember_request
-- The first note of a request id stays.
INSERT INTO refresh_requests (request_id, refresh_id, joined, arguments)
VALUES (%(request_id)s, %(refresh_id)s, %(joined)s, %(arguments)s)
ON CONFLICT (request_id) DO NOTHING;

-- name: beat_refresh
-- A sign of life of a run under way.
UPDATE models_refresh_history
SET heartbeat_at = clock_timestamp()
WHERE
    id = %(refresh_id)s
    AND status IN ('PENDING', 'RUNNING', 'CANCELLING');

-- name: cancel_refresh
-- Asks a run under way to stop.
UPDATE models_refresh_history
SET status = 'CANCELLING'
WHERE
    id = %(refresh_id)s
    AND status IN ('PENDING', 'RUNNING')
RETURNING phase;

-- name: end_expired_refresh
-- Ends the run under way if it gave no sign of life for so long.
UPDATE models_refresh_history
SET
    status = 'FAILED',
    error_reason = 'OWNER_LOST',
    error_message = %(error_message)s,
    error_metadata = '{}',
    completed_at = clock_timestamp()
WHERE
    status IN ('PENDING', 'RUNNING', 'CANCELLING')
    AND coalesce(heartbeat_at, started_at) < clock_timestamp() - %(lease)s::interval
RETURNING
    id,
    phase,
    started_at;

-- name: terminate_owner
-- Ends the session that holds the lock of the one runner: its process is stuck, and would hold it for ever. Not one that
-- took the lock after that run began, to end it or to start the next: an owner's session does nothing else.
SELECT pg_terminate_backend(l.pid) AS terminated
FROM pg_locks AS l
INNER JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE
    l.locktype = 'advisory'
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND (l.classid::bigint << 32) | l.objid::bigint = %(lock)s
    AND l.objsubid = 1
    AND l.granted
    AND a.state_change < %(started_at)s;

-- name: terminate_idle_owner
-- Ends the session that has held the lock of the one runner for so long while no run is under way. The network has
-- forgotten it, and lost the word that gave the lock back: PostgreSQL itself would notice after two hours.
SELECT pg_terminate_backend(l.pid) AS terminated
FROM pg_locks AS l
INNER JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE
    l.locktype = 'advisory'
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND (l.classid::bigint << 32) | l.objid::bigint = %(lock)s
    AND l.objsubid = 1
    AND l.granted
    AND a.state_change < clock_timestamp() - %(lease)s::interval
    AND NOT EXISTS (
        SELECT FROM models_refresh_history
        WHERE status IN ('PENDING', 'RUNNING', 'CANCELLING')
    );

-- name: take_slot
-- No row comes back when it, or a newer one, is taken.
INSERT INTO refresh_schedule (name, slot)
VALUES (%(timer)s, %(slot)s)
ON CONFLICT (name) DO UPDATE
SET slot = EXCLUDED.slot
WHERE refresh_schedule.slot < EXCLUDED.slot
RETURNING name;

-- name: give_back_slot
-- Of a run that came to nothing because its process was ended: whoever looks next finds it due.
UPDATE refresh_schedule
SET slot = slot - interval '1 second'
WHERE
    name = %(timer)s
    AND slot = %(slot)s
    AND EXISTS (
        SELECT FROM models_refresh_history
        WHERE
            id = %(refresh_id)s
            AND status = 'CANCELLED'
    );

-- name: forget_future_slots
-- A process whose clock was ahead took them: nothing would be due until the time that it had.
DELETE FROM refresh_schedule
WHERE slot > greatest(clock_timestamp(), %(now)s) + interval '1 hour'
RETURNING name AS timer;

-- name: get_slots
-- The newest slot of each timer that was taken.
SELECT
    name AS timer,
    slot
FROM refresh_schedule;

-- name: set_upstream_not_before
-- Upstream asked to be left alone until then.
UPDATE catalog_state
SET
    upstream_not_before = %(at)s,
    upstream_not_before_url = %(source_url)s;

-- name: prune_events
-- Events that no resume token reaches any more. The end of a run stays as long as the run: watches on it end with it.
DELETE FROM refresh_events
WHERE
    happened_at < %(before)s
    AND kind <> 'TERMINAL';

-- name: find_old_refreshes
-- Runs over for so long, but those that made a revision, which are part of the catalog's history, and those that
-- another run refers to.
SELECT h.id
FROM models_refresh_history AS h
WHERE
    h.completed_at < %(before)s
    AND NOT EXISTS (SELECT 1 FROM catalog_revisions AS r WHERE r.refresh_id = h.id)
    AND NOT EXISTS (SELECT 1 FROM models_refresh_history AS f WHERE f.fallback_of = h.id)
ORDER BY h.started_at
LIMIT %(limit)s;

-- name: delete_refresh_events
-- What is left of the runs' events.
DELETE FROM refresh_events
WHERE refresh_id = ANY(%(refresh_ids)s::uuid[]);

-- name: delete_refresh_reports
-- The runs' reports.
DELETE FROM refresh_reports
WHERE refresh_id = ANY(%(refresh_ids)s::uuid[]);

-- name: delete_refresh_requests
-- The request ids that stood for the runs.
DELETE FROM refresh_requests
WHERE refresh_id = ANY(%(refresh_ids)s::uuid[]);

-- name: delete_refreshes
-- The runs themselves, after what refers to them.
DELETE FROM models_refresh_history
WHERE id = ANY(%(refresh_ids)s::uuid[]);

-- name: get_active_refresh
-- The run under way.
SELECT to_jsonb(h) AS refresh
FROM models_refresh_history AS h
WHERE h.status IN ('PENDING', 'RUNNING', 'CANCELLING');

-- name: get_last_finished_refresh
-- The newest run that is over; with only_success the newest that applied what upstream says.
SELECT to_jsonb(h) AS refresh
FROM models_refresh_history AS h
WHERE
    h.completed_at IS NOT NULL
    AND (
        NOT %(only_success)s
        OR (h.status IN ('SUCCEEDED', 'PARTIALLY_SUCCEEDED') AND NOT h.validate_only)
    )
ORDER BY h.started_at DESC, h.id DESC
LIMIT 1;

-- name: get_last_applied_refresh
-- The newest run that applied a whole document of upstream's.
SELECT to_jsonb(h) AS refresh
FROM models_refresh_history AS h
WHERE
    h.status IN ('SUCCEEDED', 'PARTIALLY_SUCCEEDED')
    AND h.provider_id IS NULL
    AND NOT h.validate_only
    AND NOT h.not_modified
ORDER BY h.started_at DESC, h.id DESC
LIMIT 1;

-- name: save_report
-- What a run found. Of a run that compares again, the last word.
INSERT INTO refresh_reports (refresh_id, report)
VALUES (%(refresh_id)s, %(report)s::jsonb)
ON CONFLICT (refresh_id) DO UPDATE
SET report = excluded.report;

-- name: get_report
-- What a run found.
SELECT report
FROM refresh_reports
WHERE refresh_id = %(refresh_id)s;

-- name: get_last_event_id
-- Where a watch of everything begins.
SELECT coalesce(max(id), 0) AS id
FROM refresh_events;

-- name: list_events
-- Events after a cursor, in commit order. refresh_id NULL: of all runs.
SELECT
    e.id,
    e.sequence,
    e.kind,
    e.phase,
    e.done,
    e.total,
    e.message,
    e.happened_at,
    e.refresh
FROM refresh_events AS e
WHERE
    e.id > %(after_id)s
    AND (e.refresh_id = %(refresh_id)s OR %(refresh_id)s::uuid IS NULL)
ORDER BY e.id
LIMIT %(limit)s;

-- name: get_event_at
-- The last event at or before a cursor: the state as of it. refresh_id NULL: of all runs.
SELECT
    e.id,
    e.sequence,
    e.kind,
    e.phase,
    e.done,
    e.total,
    e.message,
    e.happened_at,
    e.refresh
FROM refresh_events AS e
WHERE
    e.id <= %(at_id)s
    AND (e.refresh_id = %(refresh_id)s OR %(refresh_id)s::uuid IS NULL)
ORDER BY e.id DESC
LIMIT 1;

-- name: get_terminal_event_id
-- The event that ended a run.
SELECT e.id
FROM refresh_events AS e
WHERE
    e.refresh_id = %(refresh_id)s
    AND e.kind = 'TERMINAL';

-- name: try_own_refresh
-- Session lock of the one runner in the cluster; gone with its connection.
SELECT pg_try_advisory_lock(%(lock)s) AS owned;

-- name: disown_refresh
-- Gives the session lock back.
SELECT pg_advisory_unlock(%(lock)s);
