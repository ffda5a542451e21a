-- Why: where every model changed, a tenth of the time went into the trigger that guards versions, which ran PL/pgSQL for
-- each row that was closed. Now PostgreSQL itself tells what is allowed, and calls it for what is not.

CREATE OR REPLACE FUNCTION refuse_version_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME;
END
$$;

-- Guards a table of versions: a version may only be closed, once. By the columns that the table has now: a migration that
-- adds one calls it again.
CREATE PROCEDURE guard_versions(versions regclass) LANGUAGE plpgsql AS $$
DECLARE
    what_never_changes text := (
        SELECT string_agg(quote_ident(attname), ', ')
        FROM pg_attribute
        WHERE
            attrelid = versions
            AND attnum > 0
            AND NOT attisdropped
            AND attname <> 'valid_to_revision'
    );
BEGIN
    EXECUTE format(
        'CREATE OR REPLACE TRIGGER versions_keep BEFORE DELETE OR TRUNCATE ON %s
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_version_change()',
        versions
    );
    EXECUTE format(
        'CREATE OR REPLACE TRIGGER versions_stand BEFORE UPDATE OF %s ON %s
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_version_change()',
        what_never_changes,
        versions
    );
    EXECUTE format(
        'CREATE OR REPLACE TRIGGER versions_close_once BEFORE UPDATE OF valid_to_revision ON %s
        FOR EACH ROW
        WHEN ((OLD.valid_to_revision IS NULL AND NEW.valid_to_revision > OLD.revision) IS NOT TRUE)
        EXECUTE FUNCTION refuse_version_change()',
        versions
    );
END
$$;

CALL guard_versions('model_versions');
CALL guard_versions('provider_versions');
CALL guard_versions('canonical_model_versions');
DROP TRIGGER model_versions_append_only ON model_versions;
DROP TRIGGER provider_versions_append_only ON provider_versions;
DROP TRIGGER canonical_model_versions_append_only ON canonical_model_versions;
DROP TRIGGER model_versions_keep ON model_versions;
DROP TRIGGER provider_versions_keep ON provider_versions;
DROP TRIGGER canonical_model_versions_keep ON canonical_model_versions;

-- An update that finds room on its page leaves the index alone.
ALTER TABLE source_hashes SET (fillfactor = 50);
