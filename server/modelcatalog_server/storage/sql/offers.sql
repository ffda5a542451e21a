-- Offers of one model. What stands in braces is composed by composition.py: offered says which model, values are those
-- of the fields in which offers are told apart, differs says for each of them whether they are not all equal.

-- name: list_offers
-- One keyset page of the current offers, cheapest first, unknown prices last.
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
    x.mix,
    {values} AS values
FROM models_metadata AS m
INNER JOIN llm_providers AS p ON p.id = m.provider_id
LEFT JOIN canonical_models AS c ON c.id = m.canonical_id
CROSS JOIN LATERAL (SELECT %(ratio)s::numeric * m.pricing_input + m.pricing_output AS mix) AS x
WHERE
    {offered}
    AND m.removed_at IS NULL
    AND p.enabled
    AND (
        %(after_id)s = ''
        OR x.mix > %(after_mix)s::numeric
        OR (x.mix = %(after_mix)s::numeric AND m.model_id > %(after_id)s)
        OR (x.mix IS NULL AND (%(after_mix)s::numeric IS NOT NULL OR m.model_id > %(after_id)s))
    )
ORDER BY x.mix ASC NULLS LAST, m.model_id
LIMIT %(limit)s;

-- name: list_offers_at_revision
-- One keyset page of the offers as they were at a past revision.
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
    x.mix,
    {values} AS values
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
CROSS JOIN LATERAL (SELECT %(ratio)s::numeric * m.pricing_input + m.pricing_output AS mix) AS x
WHERE
    {offered}
    AND m.revision <= %(revision)s
    AND (m.valid_to_revision IS NULL OR m.valid_to_revision > %(revision)s)
    AND m.removed_at IS NULL
    AND p.enabled
    AND (
        %(after_id)s = ''
        OR x.mix > %(after_mix)s::numeric
        OR (x.mix = %(after_mix)s::numeric AND m.model_id > %(after_id)s)
        OR (x.mix IS NULL AND (%(after_mix)s::numeric IS NOT NULL OR m.model_id > %(after_id)s))
    )
ORDER BY x.mix ASC NULLS LAST, m.model_id
LIMIT %(limit)s;

-- name: summarize_offers
-- All current offers of a model together.
SELECT
    count(*)::integer AS total,
    {differs} AS differs
FROM models_metadata AS m
INNER JOIN llm_providers AS p ON p.id = m.provider_id
WHERE
    {offered}
    AND m.removed_at IS NULL
    AND p.enabled;

-- name: summarize_offers_at_revision
-- All offers of a model together, as they were at a past revision.
SELECT
    count(*)::integer AS total,
    {differs} AS differs
FROM model_versions AS m
INNER JOIN provider_versions AS p
    ON
        p.id = m.provider_id
        AND p.revision <= %(revision)s
        AND (p.valid_to_revision IS NULL OR p.valid_to_revision > %(revision)s)
WHERE
    {offered}
    AND m.revision <= %(revision)s
    AND (m.valid_to_revision IS NULL OR m.valid_to_revision > %(revision)s)
    AND m.removed_at IS NULL
    AND p.enabled;
