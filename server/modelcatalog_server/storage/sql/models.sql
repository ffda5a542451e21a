-- name: get_models
-- Models by exact id, also removed ones; those of disabled providers are hidden.
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
    CASE WHEN %(with_raw)s THEN m.raw_metadata::text END AS raw
FROM models_metadata AS m
INNER JOIN llm_providers AS p ON p.id = m.provider_id
LEFT JOIN canonical_models AS c ON c.id = m.canonical_id
WHERE
    m.model_id = ANY(%(model_ids)s::text[])
    AND p.enabled;

-- name: list_models
-- One keyset page of the current models, by id.
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
    CASE WHEN %(with_raw)s THEN m.raw_metadata::text END AS raw
FROM models_metadata AS m
INNER JOIN llm_providers AS p ON p.id = m.provider_id
LEFT JOIN canonical_models AS c ON c.id = m.canonical_id
WHERE
    m.model_id > %(after_id)s
    AND (m.removed_at IS NULL OR %(show_removed)s)
    AND p.enabled
ORDER BY m.model_id
LIMIT %(limit)s
OFFSET %(offset)s;

-- name: list_models_of_provider
-- One keyset page of the current models of one provider, by id.
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
    CASE WHEN %(with_raw)s THEN m.raw_metadata::text END AS raw
FROM models_metadata AS m
INNER JOIN llm_providers AS p ON p.id = m.provider_id
LEFT JOIN canonical_models AS c ON c.id = m.canonical_id
WHERE
    m.provider_id = %(provider_id)s
    AND m.model_id > %(after_id)s
    AND (m.removed_at IS NULL OR %(show_removed)s)
    AND p.enabled
ORDER BY m.model_id
LIMIT %(limit)s
OFFSET %(offset)s;

-- name: list_models_at_revision
-- One keyset page of the models as they were at a past revision, by id. provider_id NULL: of all providers.
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
    CASE WHEN %(with_raw)s THEN m.raw_metadata::text END AS raw
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
    m.model_id > %(after_id)s
    AND m.revision <= %(revision)s
    AND (m.valid_to_revision IS NULL OR m.valid_to_revision > %(revision)s)
    AND (m.removed_at IS NULL OR %(show_removed)s)
    AND (m.provider_id = %(provider_id)s OR %(provider_id)s::text IS NULL)
    AND p.enabled
ORDER BY m.model_id
LIMIT %(limit)s
OFFSET %(offset)s;

-- name: count_models
-- Models that a listing has on all its pages together. Listed ones are counted through their providers.
SELECT
    coalesce(sum(p.enabled_models), 0)::integer
    + CASE
        WHEN %(show_removed)s THEN (
            SELECT count(*)::integer
            FROM models_metadata AS m
            INNER JOIN llm_providers AS o ON o.id = m.provider_id
            WHERE
                m.removed_at IS NOT NULL
                AND (m.provider_id = %(provider_id)s OR %(provider_id)s::text IS NULL)
                AND o.enabled
        )
        ELSE 0
    END AS total
FROM llm_providers AS p
WHERE p.id = %(provider_id)s OR %(provider_id)s::text IS NULL;

-- name: find_near_model_ids
-- Up to ten listed ids that look like one that does not exist, nearest first.
SELECT d.model_id
FROM search_documents AS d
INNER JOIN llm_providers AS p ON p.id = d.provider_id
WHERE
    d.valid_to_revision IS NULL
    AND p.enabled
ORDER BY lower(d.model_id) <-> lower(%(model_id)s), d.model_id
LIMIT 10;

-- name: list_links
-- All listed models, a row for each provider there ever was: what it serves, and in the same order the canonical models
-- behind that, NULL of a disabled provider. One text each, a line for a model: that takes a fraction of the time that
-- thousands of rows do, and no id has a line break.
SELECT
    p.id AS provider_id,
    string_agg(m.modelsdev_id, E'\n' ORDER BY m.modelsdev_id) AS upstream_ids,
    string_agg(coalesce(m.canonical_id, ''), E'\n' ORDER BY m.modelsdev_id) FILTER (WHERE m.model_id IS NOT NULL) AS canonical_ids
FROM llm_providers AS p
LEFT JOIN models_metadata AS m
    ON
        m.provider_id = p.id
        AND m.removed_at IS NULL
        AND p.enabled
GROUP BY p.id
ORDER BY p.id;

-- name: list_release_dates
-- All listed canonical models, with the text that upstream has for the day of release.
SELECT
    c.id,
    CASE WHEN jsonb_typeof(c.raw_metadata -> 'release_date') = 'string' THEN c.raw_metadata ->> 'release_date' END
        AS release_date
FROM canonical_models AS c
WHERE c.removed_at IS NULL
ORDER BY c.id;

-- name: get_canonical_id
-- The canonical model behind a served one, or the id itself when it is a canonical one. found: whether either exists.
SELECT
    coalesce(
        (
            SELECT m.canonical_id
            FROM models_metadata AS m
            INNER JOIN llm_providers AS p ON p.id = m.provider_id
            WHERE
                m.model_id = %(model_id)s
                AND p.enabled
        ),
        (SELECT c.id FROM canonical_models AS c WHERE c.id = %(model_id)s)
    ) AS canonical_id,
    EXISTS (
        SELECT 1
        FROM models_metadata AS m
        INNER JOIN llm_providers AS p ON p.id = m.provider_id
        WHERE
            m.model_id = %(model_id)s
            AND p.enabled
    )
    OR EXISTS (SELECT 1 FROM canonical_models AS c WHERE c.id = %(model_id)s) AS found;

-- name: list_benchmarks
-- Published results of one canonical model.
SELECT
    canonical_id,
    benchmark_name,
    coalesce(canonical_name, benchmark_name) AS canonical_name,
    benchmark_type,
    series,
    higher_is_better,
    score,
    score_text,
    metric,
    harness,
    variant,
    dataset,
    version,
    source,
    benchmark_date,
    rank,
    normalized_score,
    series_size,
    metadata::text AS raw
FROM model_benchmarks
WHERE
    canonical_id = %(canonical_id)s
    AND removed_at IS NULL
ORDER BY benchmark_name, version, dataset, metric, harness, variant, source;

-- name: list_benchmarks_of_models
-- Published results of the canonical models behind served ones; those of disabled providers are hidden.
SELECT
    b.canonical_id,
    b.benchmark_name,
    coalesce(b.canonical_name, b.benchmark_name) AS canonical_name,
    b.benchmark_type,
    b.series,
    b.higher_is_better,
    b.score,
    b.score_text,
    b.metric,
    b.harness,
    b.variant,
    b.dataset,
    b.version,
    b.source,
    b.benchmark_date,
    b.rank,
    b.normalized_score,
    b.series_size,
    b.metadata::text AS raw
FROM model_benchmarks AS b
WHERE
    b.removed_at IS NULL
    AND b.canonical_id IN (
        SELECT m.canonical_id
        FROM models_metadata AS m
        INNER JOIN llm_providers AS p ON p.id = m.provider_id
        WHERE
            m.model_id = ANY(%(model_ids)s::text[])
            AND p.enabled
    )
ORDER BY b.benchmark_name, b.version, b.dataset, b.metric, b.harness, b.variant, b.source;

-- name: find_near_canonical_ids
-- Up to ten ids of listed canonical models that look like one that does not exist, nearest first. There are hundreds.
SELECT c.id
FROM canonical_models AS c
WHERE c.removed_at IS NULL
ORDER BY lower(c.id) <-> lower(%(canonical_id)s), c.id
LIMIT 10;
