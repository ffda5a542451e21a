-- Facets of the listed models. What stands in braces is composed by composition.py.

-- name: measure_models
-- How many models fit, and for each field how many have it, of flags how many say true, else the smallest and largest.
SELECT
    count(*)::integer AS total,
    {measures}
FROM models_metadata AS m
INNER JOIN llm_providers AS p ON p.id = m.provider_id
LEFT JOIN canonical_models AS c ON c.id = m.canonical_id
WHERE
    {conditions}
    AND m.removed_at IS NULL
    AND p.enabled;

-- name: count_model_values
-- How many of the models that fit have a value: of texts the most frequent ones, of lists each list that there is.
-- absent: which of the fields this row is not about, as bits.
SELECT
    s.absent,
    s.value,
    s.elements,
    s.models
FROM (
    SELECT
        g.absent,
        g.value,
        g.elements,
        g.models,
        row_number() OVER (
            PARTITION BY g.absent
            ORDER BY g.value IS NULL, g.models DESC, g.value
        ) AS place
    FROM (
        SELECT
            {absent} AS absent,
            {value} AS value,
            {elements} AS elements,
            count(*)::integer AS models
        FROM models_metadata AS m
        INNER JOIN llm_providers AS p ON p.id = m.provider_id
        LEFT JOIN canonical_models AS c ON c.id = m.canonical_id
        WHERE
            {conditions}
            AND m.removed_at IS NULL
            AND p.enabled
        GROUP BY GROUPING SETS ({sets})
    ) AS g
) AS s
WHERE
    (s.value IS NOT NULL AND s.place <= %(limit)s)
    OR s.elements IS NOT NULL
ORDER BY s.absent, s.place;
