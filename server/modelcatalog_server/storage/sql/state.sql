-- name: get_state
-- The revision that a snapshot reads and how fresh it is.
SELECT
    revision,
    changed_at,
    checked_at,
    source_url,
    source_etag,
    source_snapshot,
    upstream_not_before,
    upstream_not_before_url
FROM catalog_state;

-- name: get_identity
-- What tells this catalog from others, and the key that seals its tokens: the same on every replica.
SELECT
    token_key,
    current_database() AS database_name,
    (SELECT max(version) FROM schema_migrations) AS schema_version
FROM catalog_state;

-- name: renew_token_key
-- A new key: tokens that were sealed before open no more, and responses that were shared are nobody's.
UPDATE catalog_state
SET token_key = DEFAULT;

-- name: get_counts
-- What the catalog holds. Models are counted through their providers, so the cost does not grow with the models.
SELECT
    p.providers,
    p.models,
    p.enabled_models,
    (SELECT count(*) FROM models_metadata WHERE removed_at IS NOT NULL)::integer AS removed_models,
    (SELECT count(*) FROM canonical_models WHERE removed_at IS NULL)::integer AS canonical_models,
    (SELECT count(*) FROM model_benchmarks WHERE removed_at IS NULL)::integer AS benchmarks
FROM (
    SELECT
        count(*)::integer AS providers,
        coalesce(sum(total_models), 0)::integer AS models,
        coalesce(sum(enabled_models), 0)::integer AS enabled_models
    FROM llm_providers
    WHERE removed_at IS NULL
) AS p;

-- name: get_schema_version
-- The newest migration that the database has.
SELECT max(version) AS version
FROM schema_migrations;

-- name: tell_processes
-- A message to every process that listens.
SELECT pg_notify('modelcatalog', %(message)s);
