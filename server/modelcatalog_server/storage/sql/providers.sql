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

-- name: list_providers_at_revision
-- One keyset page of the providers as they were at a revision, by id.
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
FROM provider_versions
WHERE
    id > %(after_id)s
    AND revision <= %(revision)s
    AND (valid_to_revision IS NULL OR valid_to_revision > %(revision)s)
    AND (removed_at IS NULL OR %(show_removed)s)
ORDER BY id
LIMIT %(limit)s;

-- name: count_providers_at_revision
-- Providers that a listing has on all its pages together.
SELECT count(*)::integer AS total
FROM provider_versions
WHERE
    revision <= %(revision)s
    AND (valid_to_revision IS NULL OR valid_to_revision > %(revision)s)
    AND (removed_at IS NULL OR %(show_removed)s);

-- name: find_near_provider_ids
-- Up to ten listed ids that look like one that does not exist, nearest first. There are hundreds, no index is needed.
SELECT id
FROM llm_providers
WHERE removed_at IS NULL
ORDER BY id <-> %(provider_id)s, id
LIMIT 10;
