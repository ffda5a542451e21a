-- Search. Words are looked for in search_documents; what stands in braces is composed by composition.py.

-- name: find_near_words
-- Words of the catalog that are spelt nearly like those that it has not, as a whole or as a beginning; with anyway like
-- any of them. likeness: 1 where letters are swapped, else that of pg_trgm.
SELECT
    asked.word,
    near.word AS near_word,
    near.likeness
FROM unnest(%(words)s::text[]) AS asked (word)
LEFT JOIN LATERAL (
    SELECT starts_with(v.word, asked.word) AS is_known
    FROM search_vocabulary AS v
    WHERE v.word >= asked.word COLLATE "C"
    ORDER BY v.word
    LIMIT 1
) AS beginning ON true
CROSS JOIN LATERAL (
    (
        SELECT
            v.word,
            1::real AS likeness
        FROM search_vocabulary AS v
        WHERE v.letters = search_letters(asked.word) COLLATE "C"
        ORDER BY v.word
        LIMIT 4
    )
    UNION ALL
    (
        SELECT
            v.word,
            similarity(v.word, asked.word) AS likeness
        FROM search_vocabulary AS v
        ORDER BY v.word <-> asked.word
        LIMIT 4
    )
) AS near
WHERE
    near.word <> asked.word
    AND near.likeness >= 0.3
    AND (%(anyway)s OR beginning.is_known IS NOT TRUE)
ORDER BY asked.word, near.likeness DESC, near.word;

-- name: search_models
-- One page of the models whose words fit, best first, and how many there are in all: one row without a model when there
-- are none. The score is points, times 10^8, plus the day of release as a number (docs/search.md); it decides with the id. To
-- look for words is what costs: most models fit none of whole.
WITH found AS (
    SELECT
        d.model_id,
        d.released + 100000000::bigint * (
            CASE
                WHEN NOT d.words @@ %(whole)s::tsquery THEN 0
                ELSE
                    CASE
                        WHEN d.words @@ %(whole_id)s::tsquery THEN 300
                        WHEN d.words @@ %(whole_name)s::tsquery THEN 100
                        ELSE 0
                    END
                    + CASE WHEN d.words @@ %(whole_family)s::tsquery THEN 3 ELSE 0 END
            END
            + CASE
                WHEN d.words @@ %(in_name)s::tsquery THEN CASE WHEN d.words @@ %(in_id)s::tsquery THEN 60 ELSE 50 END
                WHEN d.words @@ %(in_facts)s::tsquery THEN 40
                ELSE 30
            END
            + CASE WHEN d.words @@ %(whole_words)s::tsquery THEN 5 ELSE 0 END
            + CASE WHEN d.is_own THEN 110 ELSE 0 END
            - CASE WHEN d.is_dated THEN 15 ELSE 0 END
            - CASE d.status WHEN 'active' THEN 0 WHEN 'deprecated' THEN 30 ELSE 5 END
        ) AS score
    FROM search_documents AS d
    {filtered_models}
    WHERE
        d.words @@ %(words)s::tsquery
        AND d.revision <= %(revision)s
        AND (d.valid_to_revision IS NULL OR d.valid_to_revision > %(revision)s)
        AND d.provider_id NOT IN (
            SELECT hidden.id
            FROM provider_versions AS hidden
            WHERE
                NOT hidden.enabled
                AND hidden.revision <= %(revision)s
                AND (hidden.valid_to_revision IS NULL OR hidden.valid_to_revision > %(revision)s)
        )
        AND {conditions}
),

page AS (
    SELECT
        f.model_id,
        f.score
    FROM found AS f
    WHERE (f.score, %(after_id)s) < (%(after_score)s, f.model_id) OR %(after_score)s::bigint IS NULL
    ORDER BY f.score DESC, f.model_id
    LIMIT %(limit)s
    OFFSET %(offset)s
)

SELECT
    counted.total,
    page.score,
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
    m.canonical_id,
    m.model_name,
    m.model_family,
    m.tags,
    m.description
FROM (SELECT count(*)::integer AS total FROM found) AS counted
LEFT JOIN (
    page
    {page_models}
) ON true
ORDER BY page.score DESC, page.model_id;

-- name: get_superseded_for
-- How long ago the revision after this one was committed, no row while it is the newest.
SELECT clock_timestamp() - r.committed_at AS superseded_for
FROM catalog_revisions AS r
WHERE r.revision > %(revision)s
ORDER BY r.revision
LIMIT 1;

-- name: close_search_documents
-- Ends the documents of the models that this revision touched (derived_ids), or the name of whose provider it changed, if
-- anything differs that they are made of. full: those of all models are compared.
WITH renamed AS MATERIALIZED (  -- first, for it is hardly ever any, and the models of all would be read for it
    SELECT now.id
    FROM provider_versions AS now
    INNER JOIN provider_versions AS before
        ON
            before.id = now.id
            AND before.valid_to_revision = %(revision)s
    WHERE
        now.revision = %(revision)s
        AND now.name <> before.name
),

touched AS (
    SELECT id AS model_id
    FROM unnest(%(derived_ids)s::text[]) AS id
    UNION
    SELECT m.model_id
    FROM renamed AS r
    INNER JOIN models_metadata AS m ON m.provider_id = r.id
    UNION
    SELECT m.model_id
    FROM models_metadata AS m
    WHERE %(full)s
)

UPDATE search_documents AS d
SET valid_to_revision = %(revision)s
FROM touched AS t
LEFT JOIN search_sources AS s ON s.model_id = t.model_id
WHERE
    d.model_id = t.model_id
    AND d.valid_to_revision IS NULL
    AND s.digest IS DISTINCT FROM d.digest;

-- name: append_search_documents
-- Begins a document of each listed model that has none.
INSERT INTO search_documents (
    model_id,
    provider_id,
    revision,
    words,
    is_own,
    is_dated,
    status,
    released,
    digest
)
SELECT
    s.model_id,
    s.provider_id,
    %(revision)s,
    s.words,
    s.is_own,
    s.is_dated,
    s.status,
    s.released,
    s.digest
FROM search_sources AS s
WHERE
    s.model_id IN (
        SELECT id
        FROM unnest(%(derived_ids)s::text[]) AS id
        UNION
        SELECT d.model_id
        FROM search_documents AS d
        WHERE d.valid_to_revision = %(revision)s
    )
    AND NOT EXISTS (
        SELECT 1
        FROM search_documents AS d
        WHERE
            d.model_id = s.model_id
            AND d.valid_to_revision IS NULL
    );

-- name: append_search_vocabulary
-- Words that come with this revision. They stay when their models go: they only lead to words that nobody has.
INSERT INTO search_vocabulary (word, letters)
SELECT
    words.word,
    search_letters(words.word)
FROM (
    SELECT DISTINCT lexeme AS word
    FROM search_documents AS d
    CROSS JOIN unnest(tsvector_to_array(d.words)) AS lexeme
    WHERE
        d.revision = %(revision)s
        AND length(lexeme) BETWEEN 3 AND 64
        AND lexeme ~ '^[a-z]+$'
) AS words
ON CONFLICT (word) DO NOTHING;

-- name: merge_search_words
-- Brings what waits into the index of words, so that no search has to read it beside the index.
SELECT merge_search_words();

-- name: prune_search_documents
-- Deletes documents that were closed before that, a bounded number.
DELETE FROM search_documents
WHERE ctid = ANY(
    ARRAY(
        SELECT d.ctid
        FROM search_documents AS d
        WHERE d.valid_to_revision <= (
            SELECT max(r.revision)
            FROM catalog_revisions AS r
            WHERE r.committed_at < %(before)s
        )
        LIMIT %(limit)s
    )
);
