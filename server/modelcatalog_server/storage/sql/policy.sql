-- Writes of policy, each in one transaction that holds catalog_state. Versions are closed and appended as after a refresh.

-- name: set_lock_timeout
-- How long the statements of this transaction wait for a lock, so that they do not take up connections for ever.
SELECT set_config('lock_timeout', %(lock_timeout)s, true) AS lock_timeout;

-- name: read_clock
-- The time to write, read once catalog_state is ours: one clock, in the order of revisions.
SELECT clock_timestamp() AS at;

-- name: set_provider_enabled
-- Shows or hides a provider's models: reads ask the provider, no model is written.
UPDATE llm_providers
SET
    enabled = %(enabled)s,
    enabled_models = CASE WHEN %(enabled)s THEN total_models ELSE 0 END,
    revision = %(revision)s,
    last_changed_at = %(at)s
WHERE id = %(provider_id)s;

-- name: append_policy_revision
-- Why this revision exists, and a nudge to every process. No document of upstream's is behind it.
WITH revision AS (
    INSERT INTO catalog_revisions (revision, kind, committed_at)
    VALUES (%(revision)s, 'POLICY', %(at)s)
    RETURNING revision
)

SELECT pg_notify('modelcatalog', 'revision:' || revision.revision) AS notified
FROM revision;
