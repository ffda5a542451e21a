-- Why: the whole schema of the first version. docs/database.md says how it departs from the original plan and why.
--
-- Rules that hold throughout:
--   * Ids collate as bytes ("C"), so that keyset pages are the same whatever locale the database has.
--   * NULL means that upstream does not say. No column has a default that stands for an unknown value.
--   * Nothing is deleted by a refresh and no foreign key cascades: removed_at marks what upstream no longer lists.
--   * *_versions hold a record from its revision up to, not including, valid_to_revision. They are append-only: a row is
--     closed once and never changes otherwise (trigger at the end).

CREATE EXTENSION IF NOT EXISTS pg_trgm;

-- One row, locked by whoever commits a change, so that commit order is revision order: with a sequence a reader could
-- see n+1 before n.
CREATE TABLE catalog_state (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    revision bigint NOT NULL DEFAULT 0,
    changed_at timestamptz,
    -- When the whole catalog was last known to equal upstream; NULL for a bundled snapshot.
    checked_at timestamptz,
    source_url text,
    source_etag text,
    source_snapshot text,
    -- Seals page and resume tokens, the same on every replica.
    token_key bytea NOT NULL DEFAULT uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())
);
INSERT INTO catalog_state DEFAULT VALUES;

CREATE TABLE models_refresh_history (
    id uuid PRIMARY KEY,
    refresh_type text NOT NULL CHECK (refresh_type IN ('FULL', 'INCREMENTAL')),
    trigger text NOT NULL CHECK (trigger IN ('SCHEDULED', 'MANUAL', 'STARTUP')),
    provider_id text COLLATE "C",
    requested_by text,
    request_id uuid UNIQUE,
    force boolean NOT NULL,
    validate_only boolean NOT NULL,
    status text NOT NULL CHECK (
        status IN ('PENDING', 'RUNNING', 'CANCELLING', 'SUCCEEDED', 'PARTIALLY_SUCCEEDED', 'FAILED', 'CANCELLED')
    ),
    phase text,
    attempt integer NOT NULL DEFAULT 0,
    models_seen integer NOT NULL DEFAULT 0,
    models_added integer NOT NULL DEFAULT 0,
    models_changed integer NOT NULL DEFAULT 0,
    models_removed integer NOT NULL DEFAULT 0,
    models_revived integer NOT NULL DEFAULT 0,
    models_unchanged integer NOT NULL DEFAULT 0,
    models_failed integer NOT NULL DEFAULT 0,
    error_reason text,
    error_message text,
    error_metadata jsonb,
    warnings text[] NOT NULL DEFAULT '{}',
    started_at timestamptz NOT NULL,
    completed_at timestamptz,
    duration_ms bigint GENERATED ALWAYS AS (
        (extract(epoch FROM completed_at - started_at) * 1000)::bigint
    ) STORED,
    base_revision bigint,
    result_revision bigint,
    not_modified boolean NOT NULL DEFAULT false,
    last_sequence bigint NOT NULL DEFAULT 0
);
CREATE INDEX models_refresh_history_started ON models_refresh_history (started_at DESC, id DESC);
CREATE INDEX models_refresh_history_status ON models_refresh_history (status);
-- One runner per cluster: the database itself refuses a second one.
CREATE UNIQUE INDEX models_refresh_history_one_active ON models_refresh_history ((true))
WHERE status IN ('PENDING', 'RUNNING', 'CANCELLING');

-- What watchers follow. id is taken under a lock that is held until commit, so that its order is commit order.
CREATE TABLE refresh_events (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    refresh_id uuid NOT NULL REFERENCES models_refresh_history (id),
    sequence bigint NOT NULL,
    kind text NOT NULL CHECK (kind IN ('STATE', 'PROGRESS', 'TERMINAL')),
    phase text,
    done bigint NOT NULL DEFAULT 0,
    total bigint,
    message text NOT NULL DEFAULT '',
    happened_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- The history row as of this event.
    refresh jsonb NOT NULL,
    UNIQUE (refresh_id, sequence)
);
CREATE UNIQUE INDEX refresh_events_one_terminal ON refresh_events (refresh_id) WHERE kind = 'TERMINAL';

-- Every committed change of the catalog.
CREATE TABLE catalog_revisions (
    revision bigint PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('REFRESH', 'POLICY')),
    refresh_id uuid REFERENCES models_refresh_history (id),
    committed_at timestamptz NOT NULL,
    source_url text,
    source_snapshot text
);

CREATE TABLE llm_providers (
    id text COLLATE "C" PRIMARY KEY CHECK (id <> '' AND position('/' IN id) = 0),
    name text NOT NULL,
    documentation_url text,
    api_base_url text,
    npm_package text,
    env_vars text[] NOT NULL,
    modelsdev_provider_id text COLLATE "C" NOT NULL,
    raw_metadata jsonb NOT NULL,
    content_hash text NOT NULL,
    enabled boolean NOT NULL DEFAULT true,
    total_models integer NOT NULL DEFAULT 0,
    enabled_models integer NOT NULL DEFAULT 0,
    last_models_sync timestamptz NOT NULL,
    source_url text NOT NULL,
    source_snapshot text NOT NULL,
    revision bigint NOT NULL,
    first_seen_at timestamptz NOT NULL,
    last_changed_at timestamptz NOT NULL,
    removed_at timestamptz
);

CREATE TABLE models_metadata (
    model_id text COLLATE "C" PRIMARY KEY,
    provider_id text COLLATE "C" NOT NULL REFERENCES llm_providers (id),
    modelsdev_id text COLLATE "C" NOT NULL,
    canonical_id text COLLATE "C",
    canonical_rule text,
    canonical_confidence double precision,
    model_name text NOT NULL,
    description text,
    model_family text,
    version text,
    model_type text NOT NULL,
    status text NOT NULL,
    context_window bigint,
    max_input_tokens bigint,
    max_tokens bigint,
    -- US dollars per 1,000,000 tokens. pricing_currency is NULL exactly when the price is unknown.
    pricing_currency text,
    pricing_input numeric,
    pricing_output numeric,
    pricing_reasoning numeric,
    pricing_cache_read numeric,
    pricing_cache_write numeric,
    pricing_input_audio numeric,
    pricing_output_audio numeric,
    supports_vision boolean,
    supports_function_calling boolean,
    supports_streaming boolean,
    supports_json_mode boolean,
    supports_structured_output boolean,
    supports_image_generation boolean,
    supports_audio boolean,
    supports_audio_input boolean,
    supports_audio_output boolean,
    supports_video_input boolean,
    supports_pdf_input boolean,
    supports_code_generation boolean,
    supports_reasoning boolean,
    supports_tool_use boolean,
    supports_attachments boolean,
    supports_temperature boolean,
    open_weights boolean,
    input_modalities text[] NOT NULL,
    output_modalities text[] NOT NULL,
    benchmark_score numeric,
    popularity_score numeric,
    reliability_score numeric,
    tags text[] NOT NULL,
    release_date text NOT NULL,
    last_updated text NOT NULL,
    knowledge_cutoff text,
    -- The contract's Model, encoded, without what the catalog adds on reading (provider name, source, revision, times,
    -- etag). Tiers, modes and reasoning options are only here and in raw_metadata.
    message bytea NOT NULL,
    raw_metadata jsonb NOT NULL,
    content_hash text NOT NULL,
    source_url text NOT NULL,
    source_snapshot text NOT NULL,
    revision bigint NOT NULL,
    first_seen_at timestamptz NOT NULL,
    last_changed_at timestamptz NOT NULL,
    removed_at timestamptz,
    CHECK (model_id = provider_id || '/' || modelsdev_id)
);
CREATE INDEX models_metadata_provider ON models_metadata (provider_id, model_id);
CREATE INDEX models_metadata_canonical ON models_metadata (canonical_id) WHERE canonical_id IS NOT NULL;
CREATE INDEX models_metadata_type ON models_metadata (model_type);
CREATE INDEX models_metadata_tags ON models_metadata USING gin (tags);
CREATE INDEX models_metadata_revision ON models_metadata (revision);
-- Near matches of an id that does not exist, nearest first straight from the index.
CREATE INDEX models_metadata_near_id ON models_metadata USING gist (lower(model_id) gist_trgm_ops);

CREATE TABLE canonical_models (
    id text COLLATE "C" PRIMARY KEY,
    name text NOT NULL,
    family text,
    license text,
    raw_metadata jsonb NOT NULL,
    content_hash text NOT NULL,
    source_url text NOT NULL,
    source_snapshot text NOT NULL,
    revision bigint NOT NULL,
    first_seen_at timestamptz NOT NULL,
    last_changed_at timestamptz NOT NULL,
    removed_at timestamptz
);

CREATE TABLE model_benchmarks (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    canonical_id text COLLATE "C" NOT NULL REFERENCES canonical_models (id),
    benchmark_name text COLLATE "C" NOT NULL,
    benchmark_type text,
    score numeric,
    score_text text NOT NULL,
    metric text,
    harness text,
    variant text,
    dataset text,
    version text,
    source text,
    benchmark_date text,
    rank integer,
    normalized_score numeric,
    metadata jsonb NOT NULL,
    revision bigint NOT NULL,
    removed_at timestamptz
);
CREATE UNIQUE INDEX model_benchmarks_series ON model_benchmarks (
    canonical_id, benchmark_name, version, dataset, metric, harness, variant, source
) NULLS NOT DISTINCT;

CREATE TABLE model_versions (
    LIKE models_metadata,
    valid_to_revision bigint,
    change text NOT NULL CHECK (change IN ('ADDED', 'CHANGED', 'REMOVED', 'REVIVED')),
    PRIMARY KEY (model_id, revision)
);
CREATE UNIQUE INDEX model_versions_open ON model_versions (model_id) WHERE valid_to_revision IS NULL;
CREATE INDEX model_versions_revision ON model_versions (revision);

CREATE TABLE provider_versions (
    LIKE llm_providers,
    valid_to_revision bigint,
    change text NOT NULL CHECK (change IN ('ADDED', 'CHANGED', 'REMOVED', 'REVIVED')),
    PRIMARY KEY (id, revision)
);
CREATE UNIQUE INDEX provider_versions_open ON provider_versions (id) WHERE valid_to_revision IS NULL;

CREATE TABLE canonical_model_versions (
    LIKE canonical_models,
    valid_to_revision bigint,
    change text NOT NULL CHECK (change IN ('ADDED', 'CHANGED', 'REMOVED', 'REVIVED')),
    PRIMARY KEY (id, revision)
);
CREATE UNIQUE INDEX canonical_model_versions_open ON canonical_model_versions (id) WHERE valid_to_revision IS NULL;

-- Every call of an operator or admin.
CREATE TABLE audit_log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    happened_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    principal text NOT NULL,
    method text NOT NULL,
    target text NOT NULL,
    code text NOT NULL,
    details jsonb NOT NULL
);

-- History cannot be rewritten by mistake: a version may only be closed, once.
CREATE FUNCTION refuse_version_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    reopened record;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        reopened := NEW;
        reopened.valid_to_revision := NULL;
        -- *= compares the rows byte by byte, without asking each type.
        IF OLD.valid_to_revision IS NULL AND NEW.valid_to_revision > OLD.revision AND reopened *= OLD THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME;
END
$$;
CREATE TRIGGER model_versions_append_only BEFORE UPDATE OR DELETE ON model_versions
FOR EACH ROW EXECUTE FUNCTION refuse_version_change();
CREATE TRIGGER provider_versions_append_only BEFORE UPDATE OR DELETE ON provider_versions
FOR EACH ROW EXECUTE FUNCTION refuse_version_change();
CREATE TRIGGER canonical_model_versions_append_only BEFORE UPDATE OR DELETE ON canonical_model_versions
FOR EACH ROW EXECUTE FUNCTION refuse_version_change();
CREATE TRIGGER model_versions_keep BEFORE TRUNCATE ON model_versions
FOR EACH STATEMENT EXECUTE FUNCTION refuse_version_change();
CREATE TRIGGER provider_versions_keep BEFORE TRUNCATE ON provider_versions
FOR EACH STATEMENT EXECUTE FUNCTION refuse_version_change();
CREATE TRIGGER canonical_model_versions_keep BEFORE TRUNCATE ON canonical_model_versions
FOR EACH STATEMENT EXECUTE FUNCTION refuse_version_change();
