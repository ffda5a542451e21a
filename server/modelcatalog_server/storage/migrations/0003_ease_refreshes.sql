-- Why: a refresh that changes every model spent most of its time on indexes whose columns it did not change, and the
-- word of one upstream held for another.

-- An update that finds room on its page, and changes no indexed column, leaves all indexes alone. The one indexed column
-- that every change touched was the revision; a refresh knows the ids of what it touches without that index.
DROP INDEX models_metadata_revision;
ALTER TABLE models_metadata SET (fillfactor = 50);

-- Whose word upstream_not_before is: an address as in source_url. NULL: of whichever upstream there is.
ALTER TABLE catalog_state
ADD COLUMN upstream_not_before_url text;
