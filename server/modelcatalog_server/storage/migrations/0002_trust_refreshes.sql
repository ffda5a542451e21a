-- Why: what a refresh needs to be left alone for months: an owner with a heartbeat, attempts, reports, a schedule that
-- replicas share, and hashes that let it pass over what did not change.

ALTER TABLE models_refresh_history
ADD COLUMN override_gate text,
ADD COLUMN fallback_of uuid REFERENCES models_refresh_history (id),
ADD COLUMN attempts jsonb NOT NULL DEFAULT '[]',
-- Who runs it, for people, and the last sign of life.
ADD COLUMN owner text,
ADD COLUMN heartbeat_at timestamptz;

-- What a request id stands for, also when the run was joined. Goes with its run.
CREATE TABLE refresh_requests (
    request_id uuid PRIMARY KEY,
    refresh_id uuid NOT NULL REFERENCES models_refresh_history (id),
    joined boolean NOT NULL,
    -- What was asked for: the run that was joined may have been started with other arguments.
    arguments jsonb NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX refresh_requests_refresh ON refresh_requests (refresh_id);
INSERT INTO refresh_requests (request_id, refresh_id, joined, arguments, requested_at)
SELECT
    request_id,
    id,
    false,
    jsonb_build_object(
        'type', refresh_type,
        'provider_id', provider_id,
        'force', force,
        'validate_only', validate_only,
        'override_gate', null
    ),
    started_at
FROM models_refresh_history
WHERE request_id IS NOT NULL;

-- What a run found, beside its counts: ids, price changes and quarantined records.
CREATE TABLE refresh_reports (
    refresh_id uuid PRIMARY KEY REFERENCES models_refresh_history (id),
    report jsonb NOT NULL
);

-- The last time of each cron expression that some process has taken; replicas race for the row.
CREATE TABLE refresh_schedule (
    name text PRIMARY KEY,
    slot timestamptz NOT NULL
);

-- Upstream asked not to be asked before (Retry-After).
ALTER TABLE catalog_state
ADD COLUMN upstream_not_before timestamptz;

-- Of each listed record the hash of the text it was decoded from, so that the same text is not decoded again. Apart from
-- the records: a text may change without its record changing.
CREATE TABLE source_hashes (
    kind text NOT NULL CHECK (kind IN ('PROVIDER', 'MODEL', 'CANONICAL_MODEL')),
    id text COLLATE "C" NOT NULL,
    source_hash bytea NOT NULL,
    PRIMARY KEY (kind, id)
);

-- For the retention of each.
CREATE INDEX refresh_events_happened ON refresh_events (happened_at);
CREATE INDEX audit_log_happened ON audit_log (happened_at);
