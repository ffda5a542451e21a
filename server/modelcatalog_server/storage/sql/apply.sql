-- Writes of one refresh, in one transaction: staged rows come by COPY, each statement works on the whole set.

-- name: get_known_models
-- Ids of the listed and of the removed models, with their hashes in the same order. One text each, a line for a record:
-- that takes a tenth of the time that thousands of rows do, and no id has a line break. provider_id NULL: of all providers.
SELECT
    m.removed_at IS NOT NULL AS removed,
    string_agg(m.model_id, E'\n') AS ids,
    string_agg(m.content_hash, E'\n') AS content_hashes,
    string_agg(coalesce(encode(s.source_hash, 'hex'), ''), E'\n') AS source_hashes
FROM models_metadata AS m
LEFT JOIN source_hashes AS s
    ON
        s.kind = 'MODEL'
        AND s.id = m.model_id
WHERE m.provider_id = %(provider_id)s OR %(provider_id)s::text IS NULL
GROUP BY removed;

-- name: get_known_providers
-- The same of the providers. provider_id NULL: of all providers.
SELECT
    m.removed_at IS NOT NULL AS removed,
    string_agg(m.id, E'\n') AS ids,
    string_agg(m.content_hash, E'\n') AS content_hashes,
    string_agg(coalesce(encode(s.source_hash, 'hex'), ''), E'\n') AS source_hashes
FROM llm_providers AS m
LEFT JOIN source_hashes AS s
    ON
        s.kind = 'PROVIDER'
        AND s.id = m.id
WHERE m.id = %(provider_id)s OR %(provider_id)s::text IS NULL
GROUP BY removed;

-- name: get_known_canonical_models
-- The same of the canonical models.
SELECT
    m.removed_at IS NOT NULL AS removed,
    string_agg(m.id, E'\n') AS ids,
    string_agg(m.content_hash, E'\n') AS content_hashes,
    string_agg(coalesce(encode(s.source_hash, 'hex'), ''), E'\n') AS source_hashes
FROM canonical_models AS m
LEFT JOIN source_hashes AS s
    ON
        s.kind = 'CANONICAL_MODEL'
        AND s.id = m.id
GROUP BY removed;

-- name: lock_state
-- Locks the one row that every writer of the catalog locks, until commit. It comes before the lock of any other row.
SELECT revision
FROM catalog_state
FOR UPDATE;

-- name: get_prices
-- Base prices of these models as they are now, removed ones too.
SELECT
    model_id,
    pricing_input AS input,
    pricing_output AS output,
    pricing_reasoning AS reasoning,
    pricing_cache_read AS cache_read,
    pricing_cache_write AS cache_write,
    pricing_input_audio AS input_audio,
    pricing_output_audio AS output_audio
FROM models_metadata
WHERE model_id = ANY(%(model_ids)s::text[]);

-- name: bump_revision
-- Locks the one row that every writer locks, until commit: commit order is revision order.
UPDATE catalog_state
SET
    revision = revision + 1,
    changed_at = %(at)s
RETURNING revision;

-- name: set_source
-- What the catalog equals as of now. checked_at NULL: a bundled snapshot says nothing about upstream now.
UPDATE catalog_state
SET
    checked_at = %(checked_at)s,
    source_url = %(source_url)s,
    source_etag = %(source_etag)s,
    source_snapshot = %(source_snapshot)s;

-- name: remove_etag
-- The catalog equals no document of upstream's any more.
UPDATE catalog_state
SET source_etag = NULL;

-- name: set_checked
-- Upstream still says what it said.
UPDATE catalog_state
SET checked_at = clock_timestamp();

-- name: append_revision
-- Why this revision exists, and a nudge to every process.
WITH revision AS (
    INSERT INTO catalog_revisions (revision, kind, refresh_id, committed_at, source_url, source_snapshot)
    VALUES (%(revision)s, 'REFRESH', %(refresh_id)s, %(at)s, %(source_url)s, %(source_snapshot)s)
    RETURNING revision
)

SELECT pg_notify('modelcatalog', 'revision:' || revision.revision) AS notified
FROM revision;

-- name: analyze_catalog
-- Statistics of a first load. Autovacuum comes a minute later at best, and until then a page of models would read all of
-- them. Only the columns that statements ask by: the others are large.
ANALYZE
    models_metadata (model_id, provider_id, canonical_id, revision, removed_at),
    model_versions (model_id, provider_id, revision, valid_to_revision, removed_at),
    search_documents,
    llm_providers,
    provider_versions,
    canonical_models,
    model_benchmarks;

-- name: create_staged_providers
-- Providers to write.
CREATE TEMPORARY TABLE staged_providers ON COMMIT DROP AS
SELECT
    id,
    name,
    documentation_url,
    api_base_url,
    npm_package,
    env_vars,
    modelsdev_provider_id,
    raw_metadata,
    content_hash
FROM llm_providers
WITH NO DATA;

-- name: copy_staged_providers
-- Column order of the rows of providers that are staged.
COPY staged_providers (
    id,
    name,
    documentation_url,
    api_base_url,
    npm_package,
    env_vars,
    modelsdev_provider_id,
    raw_metadata,
    content_hash
) FROM STDIN;

-- name: create_staged_models
-- Models to write.
CREATE TEMPORARY TABLE staged_models ON COMMIT DROP AS
SELECT
    model_id,
    provider_id,
    modelsdev_id,
    canonical_id,
    canonical_rule,
    canonical_confidence,
    model_name,
    description,
    model_family,
    version,
    model_type,
    status,
    context_window,
    max_input_tokens,
    max_tokens,
    pricing_currency,
    pricing_input,
    pricing_output,
    pricing_reasoning,
    pricing_cache_read,
    pricing_cache_write,
    pricing_input_audio,
    pricing_output_audio,
    supports_vision,
    supports_function_calling,
    supports_streaming,
    supports_json_mode,
    supports_structured_output,
    supports_image_generation,
    supports_audio,
    supports_audio_input,
    supports_audio_output,
    supports_video_input,
    supports_pdf_input,
    supports_code_generation,
    supports_reasoning,
    supports_tool_use,
    supports_attachments,
    supports_temperature,
    open_weights,
    input_modalities,
    output_modalities,
    benchmark_score,
    popularity_score,
    reliability_score,
    tags,
    release_date,
    last_updated,
    knowledge_cutoff,
    message,
    raw_metadata,
    content_hash
FROM models_metadata
WITH NO DATA;

-- name: copy_staged_models
-- Column order of the rows of models that are staged.
COPY staged_models (
    model_id,
    provider_id,
    modelsdev_id,
    canonical_id,
    canonical_rule,
    canonical_confidence,
    model_name,
    description,
    model_family,
    version,
    model_type,
    status,
    context_window,
    max_input_tokens,
    max_tokens,
    pricing_currency,
    pricing_input,
    pricing_output,
    pricing_reasoning,
    pricing_cache_read,
    pricing_cache_write,
    pricing_input_audio,
    pricing_output_audio,
    supports_vision,
    supports_function_calling,
    supports_streaming,
    supports_json_mode,
    supports_structured_output,
    supports_image_generation,
    supports_audio,
    supports_audio_input,
    supports_audio_output,
    supports_video_input,
    supports_pdf_input,
    supports_code_generation,
    supports_reasoning,
    supports_tool_use,
    supports_attachments,
    supports_temperature,
    open_weights,
    input_modalities,
    output_modalities,
    benchmark_score,
    popularity_score,
    reliability_score,
    tags,
    release_date,
    last_updated,
    knowledge_cutoff,
    message,
    raw_metadata,
    content_hash
) FROM STDIN;

-- name: create_staged_canonical_models
-- Canonical models to write.
CREATE TEMPORARY TABLE staged_canonical_models ON COMMIT DROP AS
SELECT
    id,
    name,
    family,
    license,
    raw_metadata,
    content_hash
FROM canonical_models
WITH NO DATA;

-- name: copy_staged_canonical_models
-- Column order of the rows of canonical models that are staged.
COPY staged_canonical_models (
    id,
    name,
    family,
    license,
    raw_metadata,
    content_hash
) FROM STDIN;

-- name: create_staged_benchmarks
-- All results of the canonical models to write.
CREATE TEMPORARY TABLE staged_benchmarks ON COMMIT DROP AS
SELECT
    canonical_id,
    benchmark_name,
    score,
    score_text,
    metric,
    harness,
    variant,
    dataset,
    version,
    source,
    benchmark_date,
    metadata,
    canonical_name,
    benchmark_type,
    series,
    higher_is_better
FROM model_benchmarks
WITH NO DATA;

-- name: copy_staged_benchmarks
-- Column order of the rows of benchmarks that are staged.
COPY staged_benchmarks (
    canonical_id,
    benchmark_name,
    score,
    score_text,
    metric,
    harness,
    variant,
    dataset,
    version,
    source,
    benchmark_date,
    metadata,
    canonical_name,
    benchmark_type,
    series,
    higher_is_better
) FROM STDIN;

-- name: create_staged_source_hashes
-- Source hashes to store, NULL for those to forget.
CREATE TEMPORARY TABLE staged_source_hashes ON COMMIT DROP AS
SELECT
    kind,
    id,
    source_hash
FROM source_hashes
WITH NO DATA;

-- name: copy_staged_source_hashes
-- Column order of the rows of source hashes that are staged.
COPY staged_source_hashes (
    kind,
    id,
    source_hash
) FROM STDIN;

-- name: merge_source_hashes
-- Hashes of texts that were decoded. Writes what is staged, the same too: a full refresh leaves nothing to trust.
INSERT INTO source_hashes (
    kind,
    id,
    source_hash
)
SELECT
    kind,
    id,
    source_hash
FROM staged_source_hashes
WHERE source_hash IS NOT NULL
ON CONFLICT (kind, id) DO UPDATE
SET source_hash = EXCLUDED.source_hash;

-- name: delete_source_hashes
-- Hashes of what is not listed, or has to be decoded again.
DELETE FROM source_hashes AS h
USING staged_source_hashes AS s
WHERE
    s.source_hash IS NULL
    AND h.kind = s.kind
    AND h.id = s.id;

-- name: merge_providers
-- New providers, and those that differ; policy (enabled) is not touched.
INSERT INTO llm_providers (
    id,
    name,
    documentation_url,
    api_base_url,
    npm_package,
    env_vars,
    modelsdev_provider_id,
    raw_metadata,
    content_hash,
    last_models_sync,
    source_url,
    source_snapshot,
    revision,
    first_seen_at,
    last_changed_at
)
SELECT
    id,
    name,
    documentation_url,
    api_base_url,
    npm_package,
    env_vars,
    modelsdev_provider_id,
    raw_metadata,
    content_hash,
    %(at)s,
    %(source_url)s,
    %(source_snapshot)s,
    %(revision)s,
    %(at)s,
    %(at)s
FROM staged_providers
ON CONFLICT (id) DO UPDATE
SET
    name = EXCLUDED.name,
    documentation_url = EXCLUDED.documentation_url,
    api_base_url = EXCLUDED.api_base_url,
    npm_package = EXCLUDED.npm_package,
    env_vars = EXCLUDED.env_vars,
    modelsdev_provider_id = EXCLUDED.modelsdev_provider_id,
    raw_metadata = EXCLUDED.raw_metadata,
    content_hash = EXCLUDED.content_hash,
    source_url = CASE
        WHEN llm_providers.content_hash <> EXCLUDED.content_hash OR llm_providers.removed_at IS NOT NULL
            THEN EXCLUDED.source_url
        ELSE llm_providers.source_url
    END,
    source_snapshot = CASE
        WHEN llm_providers.content_hash <> EXCLUDED.content_hash OR llm_providers.removed_at IS NOT NULL
            THEN EXCLUDED.source_snapshot
        ELSE llm_providers.source_snapshot
    END,
    revision = CASE
        WHEN llm_providers.content_hash <> EXCLUDED.content_hash OR llm_providers.removed_at IS NOT NULL
            THEN EXCLUDED.revision
        ELSE llm_providers.revision
    END,
    last_changed_at = CASE
        WHEN llm_providers.content_hash <> EXCLUDED.content_hash OR llm_providers.removed_at IS NOT NULL
            THEN EXCLUDED.last_changed_at
        ELSE llm_providers.last_changed_at
    END,
    removed_at = NULL;

-- name: list_models_to_derive
-- Of the models to write those that are new, come back, or differ in what more than their own row is made of: search
-- documents (the columns of search_sources) and the counts of canonical models. Comes before they are written.
SELECT s.model_id
FROM staged_models AS s
LEFT JOIN models_metadata AS m ON m.model_id = s.model_id
WHERE
    m.model_id IS NULL
    OR m.removed_at IS NOT NULL
    OR (
        m.model_name,
        m.model_family,
        m.tags,
        m.canonical_id,
        m.description,
        m.status,
        m.release_date
    ) IS DISTINCT FROM (
        s.model_name,
        s.model_family,
        s.tags,
        s.canonical_id,
        s.description,
        s.status,
        s.release_date
    );

-- name: merge_models
-- New models, and those that differ. One that is the same is rewritten, in its old revision, if its message differs or by
-- a full refresh.
INSERT INTO models_metadata (
    model_id,
    provider_id,
    modelsdev_id,
    canonical_id,
    canonical_rule,
    canonical_confidence,
    model_name,
    description,
    model_family,
    version,
    model_type,
    status,
    context_window,
    max_input_tokens,
    max_tokens,
    pricing_currency,
    pricing_input,
    pricing_output,
    pricing_reasoning,
    pricing_cache_read,
    pricing_cache_write,
    pricing_input_audio,
    pricing_output_audio,
    supports_vision,
    supports_function_calling,
    supports_streaming,
    supports_json_mode,
    supports_structured_output,
    supports_image_generation,
    supports_audio,
    supports_audio_input,
    supports_audio_output,
    supports_video_input,
    supports_pdf_input,
    supports_code_generation,
    supports_reasoning,
    supports_tool_use,
    supports_attachments,
    supports_temperature,
    open_weights,
    input_modalities,
    output_modalities,
    benchmark_score,
    popularity_score,
    reliability_score,
    tags,
    release_date,
    last_updated,
    knowledge_cutoff,
    message,
    raw_metadata,
    content_hash,
    source_url,
    source_snapshot,
    revision,
    first_seen_at,
    last_changed_at
)
SELECT
    model_id,
    provider_id,
    modelsdev_id,
    canonical_id,
    canonical_rule,
    canonical_confidence,
    model_name,
    description,
    model_family,
    version,
    model_type,
    status,
    context_window,
    max_input_tokens,
    max_tokens,
    pricing_currency,
    pricing_input,
    pricing_output,
    pricing_reasoning,
    pricing_cache_read,
    pricing_cache_write,
    pricing_input_audio,
    pricing_output_audio,
    supports_vision,
    supports_function_calling,
    supports_streaming,
    supports_json_mode,
    supports_structured_output,
    supports_image_generation,
    supports_audio,
    supports_audio_input,
    supports_audio_output,
    supports_video_input,
    supports_pdf_input,
    supports_code_generation,
    supports_reasoning,
    supports_tool_use,
    supports_attachments,
    supports_temperature,
    open_weights,
    input_modalities,
    output_modalities,
    benchmark_score,
    popularity_score,
    reliability_score,
    tags,
    release_date,
    last_updated,
    knowledge_cutoff,
    message,
    raw_metadata,
    content_hash,
    %(source_url)s,
    %(source_snapshot)s,
    %(revision)s,
    %(at)s,
    %(at)s
FROM staged_models
ON CONFLICT (model_id) DO UPDATE
SET
    provider_id = EXCLUDED.provider_id,
    modelsdev_id = EXCLUDED.modelsdev_id,
    canonical_id = EXCLUDED.canonical_id,
    canonical_rule = EXCLUDED.canonical_rule,
    canonical_confidence = EXCLUDED.canonical_confidence,
    model_name = EXCLUDED.model_name,
    description = EXCLUDED.description,
    model_family = EXCLUDED.model_family,
    version = EXCLUDED.version,
    model_type = EXCLUDED.model_type,
    status = EXCLUDED.status,
    context_window = EXCLUDED.context_window,
    max_input_tokens = EXCLUDED.max_input_tokens,
    max_tokens = EXCLUDED.max_tokens,
    pricing_currency = EXCLUDED.pricing_currency,
    pricing_input = EXCLUDED.pricing_input,
    pricing_output = EXCLUDED.pricing_output,
    pricing_reasoning = EXCLUDED.pricing_reasoning,
    pricing_cache_read = EXCLUDED.pricing_cache_read,
    pricing_cache_write = EXCLUDED.pricing_cache_write,
    pricing_input_audio = EXCLUDED.pricing_input_audio,
    pricing_output_audio = EXCLUDED.pricing_output_audio,
    supports_vision = EXCLUDED.supports_vision,
    supports_function_calling = EXCLUDED.supports_function_calling,
    supports_streaming = EXCLUDED.supports_streaming,
    supports_json_mode = EXCLUDED.supports_json_mode,
    supports_structured_output = EXCLUDED.supports_structured_output,
    supports_image_generation = EXCLUDED.supports_image_generation,
    supports_audio = EXCLUDED.supports_audio,
    supports_audio_input = EXCLUDED.supports_audio_input,
    supports_audio_output = EXCLUDED.supports_audio_output,
    supports_video_input = EXCLUDED.supports_video_input,
    supports_pdf_input = EXCLUDED.supports_pdf_input,
    supports_code_generation = EXCLUDED.supports_code_generation,
    supports_reasoning = EXCLUDED.supports_reasoning,
    supports_tool_use = EXCLUDED.supports_tool_use,
    supports_attachments = EXCLUDED.supports_attachments,
    supports_temperature = EXCLUDED.supports_temperature,
    open_weights = EXCLUDED.open_weights,
    input_modalities = EXCLUDED.input_modalities,
    output_modalities = EXCLUDED.output_modalities,
    benchmark_score = EXCLUDED.benchmark_score,
    popularity_score = EXCLUDED.popularity_score,
    reliability_score = EXCLUDED.reliability_score,
    tags = EXCLUDED.tags,
    release_date = EXCLUDED.release_date,
    last_updated = EXCLUDED.last_updated,
    knowledge_cutoff = EXCLUDED.knowledge_cutoff,
    message = EXCLUDED.message,
    raw_metadata = EXCLUDED.raw_metadata,
    content_hash = EXCLUDED.content_hash,
    source_url = CASE
        WHEN models_metadata.content_hash <> EXCLUDED.content_hash OR models_metadata.removed_at IS NOT NULL
            THEN EXCLUDED.source_url
        ELSE models_metadata.source_url
    END,
    source_snapshot = CASE
        WHEN models_metadata.content_hash <> EXCLUDED.content_hash OR models_metadata.removed_at IS NOT NULL
            THEN EXCLUDED.source_snapshot
        ELSE models_metadata.source_snapshot
    END,
    revision = CASE
        WHEN models_metadata.content_hash <> EXCLUDED.content_hash OR models_metadata.removed_at IS NOT NULL
            THEN EXCLUDED.revision
        ELSE models_metadata.revision
    END,
    last_changed_at = CASE
        WHEN models_metadata.content_hash <> EXCLUDED.content_hash OR models_metadata.removed_at IS NOT NULL
            THEN EXCLUDED.last_changed_at
        ELSE models_metadata.last_changed_at
    END,
    removed_at = NULL
WHERE
    models_metadata.content_hash <> EXCLUDED.content_hash
    OR models_metadata.removed_at IS NOT NULL
    OR models_metadata.message <> EXCLUDED.message
    OR %(full)s;

-- name: merge_canonical_models
-- New canonical models, and those that differ.
INSERT INTO canonical_models (
    id,
    name,
    family,
    license,
    raw_metadata,
    content_hash,
    source_url,
    source_snapshot,
    revision,
    first_seen_at,
    last_changed_at
)
SELECT
    id,
    name,
    family,
    license,
    raw_metadata,
    content_hash,
    %(source_url)s,
    %(source_snapshot)s,
    %(revision)s,
    %(at)s,
    %(at)s
FROM staged_canonical_models
ON CONFLICT (id) DO UPDATE
SET
    name = EXCLUDED.name,
    family = EXCLUDED.family,
    license = EXCLUDED.license,
    raw_metadata = EXCLUDED.raw_metadata,
    content_hash = EXCLUDED.content_hash,
    source_url = CASE
        WHEN canonical_models.content_hash <> EXCLUDED.content_hash OR canonical_models.removed_at IS NOT NULL
            THEN EXCLUDED.source_url
        ELSE canonical_models.source_url
    END,
    source_snapshot = CASE
        WHEN canonical_models.content_hash <> EXCLUDED.content_hash OR canonical_models.removed_at IS NOT NULL
            THEN EXCLUDED.source_snapshot
        ELSE canonical_models.source_snapshot
    END,
    revision = CASE
        WHEN canonical_models.content_hash <> EXCLUDED.content_hash OR canonical_models.removed_at IS NOT NULL
            THEN EXCLUDED.revision
        ELSE canonical_models.revision
    END,
    last_changed_at = CASE
        WHEN canonical_models.content_hash <> EXCLUDED.content_hash OR canonical_models.removed_at IS NOT NULL
            THEN EXCLUDED.last_changed_at
        ELSE canonical_models.last_changed_at
    END,
    removed_at = NULL;

-- name: remove_models
-- Models that upstream no longer lists.
UPDATE models_metadata
SET
    removed_at = %(at)s,
    revision = %(revision)s,
    last_changed_at = %(at)s
WHERE
    model_id = ANY(%(ids)s::text[])
    AND removed_at IS NULL;

-- name: remove_providers
-- Providers that upstream no longer lists.
UPDATE llm_providers
SET
    removed_at = %(at)s,
    revision = %(revision)s,
    last_changed_at = %(at)s
WHERE
    id = ANY(%(ids)s::text[])
    AND removed_at IS NULL;

-- name: remove_canonical_models
-- Canonical models that upstream no longer lists.
UPDATE canonical_models
SET
    removed_at = %(at)s,
    revision = %(revision)s,
    last_changed_at = %(at)s
WHERE
    id = ANY(%(ids)s::text[])
    AND removed_at IS NULL;

-- name: remove_benchmarks
-- Results of the given canonical models that upstream no longer lists.
UPDATE model_benchmarks AS b
SET
    removed_at = %(at)s,
    revision = %(revision)s
WHERE
    b.canonical_id = ANY(%(canonical_ids)s::text[])
    AND b.removed_at IS NULL
    AND NOT EXISTS (
        SELECT 1
        FROM staged_benchmarks AS s
        WHERE
            s.canonical_id = b.canonical_id
            AND s.benchmark_name IS NOT DISTINCT FROM b.benchmark_name
            AND s.version IS NOT DISTINCT FROM b.version
            AND s.dataset IS NOT DISTINCT FROM b.dataset
            AND s.metric IS NOT DISTINCT FROM b.metric
            AND s.harness IS NOT DISTINCT FROM b.harness
            AND s.variant IS NOT DISTINCT FROM b.variant
            AND s.source IS NOT DISTINCT FROM b.source
    );

-- name: merge_benchmarks
-- New results, and those that differ. Of results that repeat their whole key the first stands; all are in the raw record.
INSERT INTO model_benchmarks (
    canonical_id,
    benchmark_name,
    score,
    score_text,
    metric,
    harness,
    variant,
    dataset,
    version,
    source,
    benchmark_date,
    metadata,
    canonical_name,
    benchmark_type,
    series,
    higher_is_better,
    revision
)
SELECT DISTINCT ON (
    canonical_id,
    benchmark_name,
    version,
    dataset,
    metric,
    harness,
    variant,
    source
)
    canonical_id,
    benchmark_name,
    score,
    score_text,
    metric,
    harness,
    variant,
    dataset,
    version,
    source,
    benchmark_date,
    metadata,
    canonical_name,
    benchmark_type,
    series,
    higher_is_better,
    %(revision)s
FROM staged_benchmarks
ON CONFLICT (canonical_id, benchmark_name, version, dataset, metric, harness, variant, source) DO UPDATE
SET
    score = EXCLUDED.score,
    score_text = EXCLUDED.score_text,
    benchmark_date = EXCLUDED.benchmark_date,
    metadata = EXCLUDED.metadata,
    canonical_name = EXCLUDED.canonical_name,
    benchmark_type = EXCLUDED.benchmark_type,
    series = EXCLUDED.series,
    higher_is_better = EXCLUDED.higher_is_better,
    revision = EXCLUDED.revision,
    removed_at = NULL
WHERE
    model_benchmarks.removed_at IS NOT NULL
    OR (
        model_benchmarks.score,
        model_benchmarks.score_text,
        model_benchmarks.benchmark_date,
        model_benchmarks.metadata,
        model_benchmarks.canonical_name,
        model_benchmarks.benchmark_type,
        model_benchmarks.series,
        model_benchmarks.higher_is_better
    ) IS DISTINCT FROM (
        EXCLUDED.score,
        EXCLUDED.score_text,
        EXCLUDED.benchmark_date,
        EXCLUDED.metadata,
        EXCLUDED.canonical_name,
        EXCLUDED.benchmark_type,
        EXCLUDED.series,
        EXCLUDED.higher_is_better
    );

-- name: rank_benchmarks
-- Places and normalised scores of all results, by series: a few hundred rows, whatever the number of served models. Of
-- several results of one model in one series its best has the place, the others none. The rows that are right stay.
WITH best AS (
    SELECT DISTINCT ON (b.series, b.canonical_id)
        b.id,
        b.series,
        CASE WHEN b.higher_is_better THEN b.score ELSE -b.score END AS merit
    FROM model_benchmarks AS b
    WHERE
        b.series IS NOT NULL
        AND b.removed_at IS NULL
    ORDER BY b.series, b.canonical_id, merit DESC, b.source, b.id
),

placed AS (
    SELECT
        id,
        merit,
        rank() OVER (PARTITION BY series ORDER BY merit DESC) AS place,
        count(*) OVER (PARTITION BY series) AS models,
        min(merit) OVER (PARTITION BY series) AS worst,
        max(merit) OVER (PARTITION BY series) AS best
    FROM best
),

comparable AS (
    SELECT
        b.id,
        p.place::integer AS rank,
        round(100 * (p.merit - p.worst) / nullif(p.best - p.worst, 0), 2) AS normalized_score,
        p.models::integer AS series_size
    FROM model_benchmarks AS b
    LEFT JOIN placed AS p
        ON
            p.id = b.id
            AND p.models >= %(min_ranked_models)s
)

UPDATE model_benchmarks AS b
SET
    rank = c.rank,
    normalized_score = c.normalized_score,
    series_size = c.series_size
FROM comparable AS c
WHERE
    c.id = b.id
    AND (b.rank, b.normalized_score, b.series_size) IS DISTINCT FROM (c.rank, c.normalized_score, c.series_size);

-- name: score_canonical_models
-- Benchmark scores of all canonical models, out of the few hundred normalised scores. The rows that are right stay.
WITH by_benchmark AS (
    SELECT
        canonical_id,
        canonical_name,
        avg(normalized_score) AS score
    FROM model_benchmarks
    WHERE
        removed_at IS NULL
        AND normalized_score IS NOT NULL
        AND series_size >= %(min_scored_models)s
    GROUP BY canonical_id, canonical_name
),

by_model AS (
    SELECT
        canonical_id,
        round(avg(score), 2) AS score
    FROM by_benchmark
    GROUP BY canonical_id
    HAVING count(*) >= %(min_scored_benchmarks)s
),

scored AS (
    SELECT
        c.id,
        s.score
    FROM canonical_models AS c
    LEFT JOIN by_model AS s ON s.canonical_id = c.id
)

UPDATE canonical_models AS c
SET
    benchmark_score = s.score,
    revision = %(revision)s,
    last_changed_at = %(at)s
FROM scored AS s
WHERE
    s.id = c.id
    AND c.benchmark_score IS DISTINCT FROM s.score;

-- name: count_canonical_providers
-- Providers that list a canonical model, disabled ones too, where this revision touched it: itself, or one of the models
-- (derived_ids) that are or were served of it; full: of all. Comes before their versions are closed. The rows that are right stay.
WITH touched AS (
    SELECT c.id
    FROM canonical_models AS c
    WHERE
        c.revision = %(revision)s
        OR %(full)s
    UNION
    SELECT m.canonical_id
    FROM models_metadata AS m
    WHERE m.model_id = ANY(%(derived_ids)s::text[])
    UNION
    SELECT v.canonical_id
    FROM model_versions AS v
    WHERE
        v.model_id = ANY(%(derived_ids)s::text[])
        AND v.valid_to_revision IS NULL
),

counted AS (
    SELECT
        t.id,
        count(DISTINCT m.provider_id) AS providers
    FROM touched AS t
    LEFT JOIN models_metadata AS m
        ON
            m.canonical_id = t.id
            AND m.removed_at IS NULL
    GROUP BY t.id
)

UPDATE canonical_models AS c
SET
    popularity_score = n.providers,
    revision = %(revision)s,
    last_changed_at = %(at)s
FROM counted AS n
WHERE
    n.id = c.id
    AND c.popularity_score IS DISTINCT FROM n.providers;

-- name: count_provider_models
-- Counts of every provider that this revision touched, itself or through one of its models (provider_ids).
UPDATE llm_providers AS p
SET
    total_models = listed.models,
    enabled_models = CASE WHEN p.enabled THEN listed.models ELSE 0 END,
    last_models_sync = %(at)s,
    revision = %(revision)s,
    last_changed_at = %(at)s
FROM (
    SELECT
        o.id,
        (
            SELECT count(*)::integer
            FROM models_metadata AS m
            WHERE
                m.provider_id = o.id
                AND m.removed_at IS NULL
        ) AS models
    FROM llm_providers AS o
    WHERE
        o.revision = %(revision)s
        OR o.id = ANY(%(provider_ids)s::text[])
) AS listed
WHERE p.id = listed.id;

-- name: close_provider_versions
-- Ends the versions of the providers that this revision touched.
UPDATE provider_versions AS v
SET valid_to_revision = %(revision)s
FROM llm_providers AS c
WHERE
    c.revision = %(revision)s
    AND v.id = c.id
    AND v.valid_to_revision IS NULL;

-- name: append_provider_versions
-- Begins a version of each of the providers that this revision touched, from the current row.
INSERT INTO provider_versions (
    id,
    name,
    documentation_url,
    api_base_url,
    npm_package,
    env_vars,
    modelsdev_provider_id,
    raw_metadata,
    content_hash,
    enabled,
    total_models,
    enabled_models,
    last_models_sync,
    source_url,
    source_snapshot,
    revision,
    first_seen_at,
    last_changed_at,
    removed_at,
    change
)
SELECT
    c.id,
    c.name,
    c.documentation_url,
    c.api_base_url,
    c.npm_package,
    c.env_vars,
    c.modelsdev_provider_id,
    c.raw_metadata,
    c.content_hash,
    c.enabled,
    c.total_models,
    c.enabled_models,
    c.last_models_sync,
    c.source_url,
    c.source_snapshot,
    c.revision,
    c.first_seen_at,
    c.last_changed_at,
    c.removed_at,
    -- Policy may change a provider that stays removed.
    CASE
        WHEN c.removed_at IS NOT NULL AND before.removed_at IS NULL THEN 'REMOVED'
        WHEN before.id IS NULL THEN 'ADDED'
        WHEN c.removed_at IS NULL AND before.removed_at IS NOT NULL THEN 'REVIVED'
        ELSE 'CHANGED'
    END
FROM llm_providers AS c
LEFT JOIN provider_versions AS before
    ON
        before.id = c.id
        AND before.valid_to_revision = %(revision)s
WHERE c.revision = %(revision)s;

-- name: close_model_versions
-- Ends the versions of the models that this revision touched (model_ids).
UPDATE model_versions
SET valid_to_revision = %(revision)s
WHERE
    model_id = ANY(%(model_ids)s::text[])
    AND valid_to_revision IS NULL;

-- name: append_model_versions
-- Begins a version of each of the models that this revision touched (model_ids), from the current row. What it follows
-- is the last one, which takes the same time however many there are.
INSERT INTO model_versions (
    model_id,
    provider_id,
    modelsdev_id,
    canonical_id,
    canonical_rule,
    canonical_confidence,
    model_name,
    description,
    model_family,
    version,
    model_type,
    status,
    context_window,
    max_input_tokens,
    max_tokens,
    pricing_currency,
    pricing_input,
    pricing_output,
    pricing_reasoning,
    pricing_cache_read,
    pricing_cache_write,
    pricing_input_audio,
    pricing_output_audio,
    supports_vision,
    supports_function_calling,
    supports_streaming,
    supports_json_mode,
    supports_structured_output,
    supports_image_generation,
    supports_audio,
    supports_audio_input,
    supports_audio_output,
    supports_video_input,
    supports_pdf_input,
    supports_code_generation,
    supports_reasoning,
    supports_tool_use,
    supports_attachments,
    supports_temperature,
    open_weights,
    input_modalities,
    output_modalities,
    benchmark_score,
    popularity_score,
    reliability_score,
    tags,
    release_date,
    last_updated,
    knowledge_cutoff,
    message,
    raw_metadata,
    content_hash,
    source_url,
    source_snapshot,
    revision,
    first_seen_at,
    last_changed_at,
    removed_at,
    change
)
SELECT
    c.model_id,
    c.provider_id,
    c.modelsdev_id,
    c.canonical_id,
    c.canonical_rule,
    c.canonical_confidence,
    c.model_name,
    c.description,
    c.model_family,
    c.version,
    c.model_type,
    c.status,
    c.context_window,
    c.max_input_tokens,
    c.max_tokens,
    c.pricing_currency,
    c.pricing_input,
    c.pricing_output,
    c.pricing_reasoning,
    c.pricing_cache_read,
    c.pricing_cache_write,
    c.pricing_input_audio,
    c.pricing_output_audio,
    c.supports_vision,
    c.supports_function_calling,
    c.supports_streaming,
    c.supports_json_mode,
    c.supports_structured_output,
    c.supports_image_generation,
    c.supports_audio,
    c.supports_audio_input,
    c.supports_audio_output,
    c.supports_video_input,
    c.supports_pdf_input,
    c.supports_code_generation,
    c.supports_reasoning,
    c.supports_tool_use,
    c.supports_attachments,
    c.supports_temperature,
    c.open_weights,
    c.input_modalities,
    c.output_modalities,
    c.benchmark_score,
    c.popularity_score,
    c.reliability_score,
    c.tags,
    c.release_date,
    c.last_updated,
    c.knowledge_cutoff,
    c.message,
    c.raw_metadata,
    c.content_hash,
    c.source_url,
    c.source_snapshot,
    c.revision,
    c.first_seen_at,
    c.last_changed_at,
    c.removed_at,
    CASE
        WHEN c.removed_at IS NOT NULL THEN 'REMOVED'
        WHEN before.model_id IS NULL THEN 'ADDED'
        WHEN before.removed_at IS NOT NULL THEN 'REVIVED'
        ELSE 'CHANGED'
    END
FROM models_metadata AS c
LEFT JOIN LATERAL (
    SELECT
        v.model_id,
        v.removed_at
    FROM model_versions AS v
    WHERE
        v.model_id = c.model_id
        AND v.revision < %(revision)s
    ORDER BY v.revision DESC
    LIMIT 1
) AS before ON true
WHERE
    c.model_id = ANY(%(model_ids)s::text[])
    AND c.revision = %(revision)s;

-- name: close_canonical_model_versions
-- Ends the versions of the canonical models that this revision touched.
UPDATE canonical_model_versions AS v
SET valid_to_revision = %(revision)s
FROM canonical_models AS c
WHERE
    c.revision = %(revision)s
    AND v.id = c.id
    AND v.valid_to_revision IS NULL;

-- name: append_canonical_model_versions
-- Begins a version of each of the canonical models that this revision touched, from the current row.
INSERT INTO canonical_model_versions (
    id,
    name,
    family,
    license,
    popularity_score,
    benchmark_score,
    raw_metadata,
    content_hash,
    source_url,
    source_snapshot,
    revision,
    first_seen_at,
    last_changed_at,
    removed_at,
    change
)
SELECT
    c.id,
    c.name,
    c.family,
    c.license,
    c.popularity_score,
    c.benchmark_score,
    c.raw_metadata,
    c.content_hash,
    c.source_url,
    c.source_snapshot,
    c.revision,
    c.first_seen_at,
    c.last_changed_at,
    c.removed_at,
    -- A score may change while it stays removed.
    CASE
        WHEN c.removed_at IS NOT NULL AND before.removed_at IS NULL THEN 'REMOVED'
        WHEN before.id IS NULL THEN 'ADDED'
        WHEN c.removed_at IS NULL AND before.removed_at IS NOT NULL THEN 'REVIVED'
        ELSE 'CHANGED'
    END
FROM canonical_models AS c
LEFT JOIN canonical_model_versions AS before
    ON
        before.id = c.id
        AND before.valid_to_revision = %(revision)s
WHERE c.revision = %(revision)s;
