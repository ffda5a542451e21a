-- name: get_provider
-- One provider, also when it is disabled or removed.
SELECT
    id,
    name,
    documentation_url,
    api_base_url,
    npm_package,
    env_vars,
    raw_metadata::text AS raw,
    content_hash,
    enabled,
    total_models,
    enabled_models,
    last_models_sync,
    revision,
    removed_at
FROM llm_providers
WHERE id = %(provider_id)s;

-- name: find_near_provider_ids
-- Up to ten listed ids that look like one that does not exist, nearest first. There are hundreds, no index is needed.
SELECT id
FROM llm_providers
WHERE removed_at IS NULL
ORDER BY id <-> %(provider_id)s, id
LIMIT 10;

-- name: list_sync_times
-- When a refresh last wrote each listed provider.
SELECT
    id,
    last_models_sync
FROM llm_providers
WHERE removed_at IS NULL
ORDER BY id;
