-- Why: SearchModels looks for words in ids, names and descriptions. That text changes far more seldom than the rest of a
-- model, so it has a table of its own: a new price touches no index of it. Near ids move here for the same reason.
--
-- Everything here is derived from models_metadata, llm_providers and canonical_models, and can be derived again.

-- What is searched of a model as lexemes: "GPT-4o" is gpt, 4 and o, however it is punctuated. Weights: A its id, B its
-- name and family, C facts about it, D its description. Beside the words stand in one piece, as lexemes that no word can
-- be mistaken for, the whole id (==), what else people write for it (=), and the family (~).
--
-- catalog/search_words.py reads queries the same way; a test holds the two together. Texts are cut, because a lexeme has
-- at most 2,046 bytes. All go through the regular expressions at once, which is what takes the time here.
CREATE FUNCTION search_lexemes(
    provider_id text, upstream_id text, model_name text, family text, facts text, description text
) RETURNS tsvector
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    last_segment text := substring(upstream_id FROM '[^/]*$');
    content text := concat_ws(
        E' \x01 ',
        provider_id,
        left(left(upstream_id, -length(last_segment)), 600),
        left(last_segment, 600),
        left(model_name, 600),
        coalesce(left(family, 600), ''),
        left(facts, 600),
        coalesce(left(description, 600), '')
    );
    parts text[];
    keys text[];
BEGIN
    content := regexp_replace(lower((content || ' ') COLLATE "C"), '[0-9]+', ' \& ', 'g');
    content := regexp_replace(content, '[^a-z0-9\x01\u00c0-\u1fff\u3040-\ud7ff\uf900-\ufdff]+', ' ', 'g');
    content := ltrim(replace(content, E'\x01 ', E'\x01'));  -- now a space is behind each word and nowhere else
    parts := string_to_array(content, E'\x01');
    keys := string_to_array(replace(content, ' ', ''), E'\x01');
    RETURN (
        replace(parts[1] || parts[2] || parts[3], ' ', ':1A ')
        || replace(parts[4] || parts[5], ' ', ':2B ')
        || replace(parts[6], ' ', ':3C ')
        || replace(parts[7], ' ', ':4D ')
        || '==' || keys[1] || keys[2] || keys[3] || ':1A '
        || '=' || keys[2] || keys[3] || ':1A '
        || '=' || keys[3] || ':1A '
        || '=' || regexp_replace(keys[3], 'latest$', '') || ':1A '
        || '=' || keys[4] || ':1A '
        || '~' || keys[5] || ':1A '
    )::tsvector;
END
$$;

-- The letters of a word in order: the same for two words whose letters were swapped.
CREATE FUNCTION search_letters(word text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (
    SELECT string_agg(letter, '' ORDER BY letter COLLATE "C")
    FROM regexp_split_to_table(word, '') AS letter
);

-- What the search knows of each listed model. Weights: A its id, B its name and family, C its provider's name, its tags
-- and its canonical id, D its description.
CREATE VIEW search_sources AS
SELECT
    m.model_id,
    m.provider_id,
    m.revision AS model_revision,
    search_lexemes(
        m.provider_id,
        m.modelsdev_id,
        m.model_name,
        m.model_family,
        concat_ws(' ', p.name, array_to_string(m.tags, ' '), m.canonical_id),
        m.description
    ) AS words,
    -- Whether the model's own lab is the provider. A lab's provider that serves a model without a link serves its own,
    -- unless the id says otherwise. The one lab whose provider has another name: OWN_PROVIDERS of the resolver.
    CASE
        WHEN m.canonical_id IS NOT NULL
            THEN m.provider_id = CASE split_part(m.canonical_id, '/', 1)
                WHEN 'meta' THEN 'llama'
                ELSE split_part(m.canonical_id, '/', 1)
            END
        ELSE
            lab.provider_id IS NOT NULL
            AND split_part(m.modelsdev_id, '/', 1) IN (m.modelsdev_id, m.provider_id)
    END AS is_own,
    -- gpt-4o-2024-11-20, gpt-4-0613, claude-opus-4-5-20251101, gemini-2.5-flash-preview-09-2025, mistral-large-2512
    m.modelsdev_id ~ '[-@:_.](20\d\d-?[01]\d-?[0-3]\d|[01]\d-?20\d\d|[01]\d[0-3]\d|2[3-9][01]\d)(?![0-9a-z])' AS is_dated,
    m.status,
    CASE
        WHEN m.release_date ~ '^\d{4}(-\d\d(-\d\d)?)?$'
            THEN rpad(replace(m.release_date, '-', ''), 8, '0')::integer
        ELSE 0
    END AS released,
    md5(
        jsonb_build_array(
            m.model_name,
            m.model_family,
            p.name,
            m.tags,
            m.canonical_id,
            m.description,
            m.status,
            m.release_date,
            lab.provider_id
        )::text
    )::uuid AS digest
FROM models_metadata AS m
INNER JOIN llm_providers AS p ON p.id = m.provider_id
LEFT JOIN (
    SELECT DISTINCT
        CASE split_part(id, '/', 1)
            WHEN 'meta' THEN 'llama'
            ELSE split_part(id, '/', 1)
        END COLLATE "C" AS provider_id
    FROM canonical_models
    WHERE removed_at IS NULL
) AS lab ON lab.provider_id = m.provider_id
WHERE m.removed_at IS NULL;

-- A row is valid from its revision up to, not including, valid_to_revision: the later pages of a search find what its
-- first page found. Closed rows are deleted when no page token can ask for them any more.
CREATE TABLE search_documents (
    model_id text COLLATE "C" NOT NULL,
    provider_id text COLLATE "C" NOT NULL,
    revision bigint NOT NULL,
    valid_to_revision bigint,
    words tsvector NOT NULL,
    is_own boolean NOT NULL,
    is_dated boolean NOT NULL,
    status text NOT NULL,
    -- Year, month and day as one number, 0 where unknown.
    released integer NOT NULL,
    -- Of everything that the row is derived from.
    digest uuid NOT NULL,
    PRIMARY KEY (model_id, revision)
);
CREATE UNIQUE INDEX search_documents_open ON search_documents (model_id) WHERE valid_to_revision IS NULL;
CREATE INDEX search_documents_closed ON search_documents (valid_to_revision) WHERE valid_to_revision IS NOT NULL;
CREATE INDEX search_documents_revision ON search_documents (revision);
-- Entries of a refresh wait in a list of up to 64 MB and go in together, at a fifth of the time that they take one by one.
CREATE INDEX search_documents_words ON search_documents USING gin (words) WITH (gin_pending_list_limit = 65536);
-- Ends that waiting; else every search would read the list until a vacuum comes by. With the rights of the owner of the
-- index, which PostgreSQL asks for.
CREATE FUNCTION merge_search_words() RETURNS bigint
LANGUAGE sql SECURITY DEFINER
AS 'SELECT pg_catalog.gin_clean_pending_list(''search_documents_words''::pg_catalog.regclass)';
-- Near matches of an id that does not exist, nearest first straight from the index.
CREATE INDEX search_documents_near_id ON search_documents USING gist (lower(model_id) gist_trgm_ops)
WHERE valid_to_revision IS NULL;
DROP INDEX models_metadata_near_id;
-- Few are hidden: a search asks who is, not of each of its models whether its provider is.
CREATE INDEX provider_versions_hidden ON provider_versions (id) WHERE NOT enabled;

-- Words that some model has or had, for those that were mistyped.
CREATE TABLE search_vocabulary (
    word text COLLATE "C" PRIMARY KEY,
    letters text COLLATE "C" NOT NULL
);
CREATE INDEX search_vocabulary_letters ON search_vocabulary (letters);
CREATE INDEX search_vocabulary_near ON search_vocabulary USING gist (word gist_trgm_ops);

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
    c.revision,
    s.words,
    s.is_own,
    s.is_dated,
    s.status,
    s.released,
    s.digest
FROM search_sources AS s
CROSS JOIN catalog_state AS c;
INSERT INTO search_vocabulary (word, letters)
SELECT
    word,
    search_letters(word)
FROM (
    SELECT DISTINCT lexeme AS word
    FROM search_documents AS d
    CROSS JOIN unnest(tsvector_to_array(d.words)) AS lexeme
    WHERE
        length(lexeme) BETWEEN 3 AND 64
        AND lexeme ~ '^[a-z]+$'
) AS words;
