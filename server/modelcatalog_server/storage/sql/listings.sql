-- Listings that take a filter or an order. What stands in braces is composed by composition.py: sort_keys are
-- texts, to be handed back in a page token; conditions are at least "true".

-- name: list_selected_models
-- One keyset page of the current models.
SELECT
    m.model_id,
    m.message,
    m.content_hash,
    p.name AS provider_name,
    m.source_url,
    m.source_snapshot,
    m.revision,
    m.first_seen_at,
    m.last_changed_at,
    m.removed_at,
    c.popularity_score,
    c.benchmark_score,
    CASE WHEN %(with_raw)s THEN m.raw_metadata::text END AS raw,
    {sort_keys} AS sort_keys
FROM models_metadata AS m
INNER JOIN llm_providers AS p ON p.id = m.provider_id
LEFT JOIN canonical_models AS c ON c.id = m.canonical_id
WHERE
    {conditions}
    AND (m.removed_at IS NULL OR %(show_removed)s)
    AND p.enabled
ORDER BY {order}
LIMIT %(limit)s
OFFSET %(offset)s;

-- name: list_selected_models_at_revision
-- One keyset page of the models as they were at a past revision.
SELECT
    m.model_id,
    m.message,
    m.content_hash,
    p.name AS provider_name,
    m.source_url,
    m.source_snapshot,
    m.revision,
    m.first_seen_at,
    m.last_changed_at,
    m.removed_at,
    c.popularity_score,
    c.benchmark_score,
    CASE WHEN %(with_raw)s THEN m.raw_metadata::text END AS raw,
    {sort_keys} AS sort_keys
FROM model_versions AS m
INNER JOIN provider_versions AS p
    ON
        p.id = m.provider_id
        AND p.revision <= %(revision)s
        AND (p.valid_to_revision IS NULL OR p.valid_to_revision > %(revision)s)
LEFT JOIN canonical_model_versions AS c
    ON
        c.id = m.canonical_id
        AND c.revision <= %(revision)s
        AND (c.valid_to_revision IS NULL OR c.valid_to_revision > %(revision)s)
WHERE
    {conditions}
    AND m.revision <= %(revision)s
    AND (m.valid_to_revision IS NULL OR m.valid_to_revision > %(revision)s)
    AND (m.removed_at IS NULL OR %(show_removed)s)
    AND p.enabled
ORDER BY {order}
LIMIT %(limit)s
OFFSET %(offset)s;

-- name: count_selected_models
-- Current models that a listing has on all its pages together.
SELECT count(*)::integer AS total
FROM models_metadata AS m
INNER JOIN llm_providers AS p ON p.id = m.provider_id
LEFT JOIN canonical_models AS c ON c.id = m.canonical_id
WHERE
    {conditions}
    AND (m.removed_at IS NULL OR %(show_removed)s)
    AND p.enabled;

-- name: list_providers
-- One keyset page of the providers as they were at a revision.
SELECT
    p.id,
    p.name,
    p.documentation_url,
    p.api_base_url,
    p.npm_package,
    p.env_vars,
    p.raw_metadata::text AS raw,
    p.content_hash,
    p.enabled,
    p.total_models,
    p.enabled_models,
    p.last_models_sync,
    p.revision,
    p.removed_at,
    {sort_keys} AS sort_keys
FROM provider_versions AS p
WHERE
    {conditions}
    AND p.revision <= %(revision)s
    AND (p.valid_to_revision IS NULL OR p.valid_to_revision > %(revision)s)
    AND (p.removed_at IS NULL OR %(show_removed)s)
ORDER BY {order}
LIMIT %(limit)s;

-- name: count_providers
-- Providers that a listing has on all its pages together.
SELECT count(*)::integer AS total
FROM provider_versions AS p
WHERE
    {conditions}
    AND p.revision <= %(revision)s
    AND (p.valid_to_revision IS NULL OR p.valid_to_revision > %(revision)s)
    AND (p.removed_at IS NULL OR %(show_removed)s);

-- name: list_refreshes
-- One keyset page, newest first.
SELECT to_jsonb(h) AS refresh
FROM models_refresh_history AS h
WHERE
    {conditions}
    AND (
        (h.started_at, h.id) < (%(before_started_at)s, %(before_id)s)
        OR %(before_id)s::uuid IS NULL
    )
ORDER BY h.started_at DESC, h.id DESC
LIMIT %(limit)s;

-- name: list_audit_events
-- One keyset page, newest first. before_id NULL: from the newest.
SELECT
    a.id,
    a.happened_at,
    a.principal,
    a.method,
    a.target,
    a.code,
    a.details
FROM audit_log AS a
WHERE
    {conditions}
    AND (a.id < %(before_id)s OR %(before_id)s::bigint IS NULL)
ORDER BY a.id DESC
LIMIT %(limit)s;
