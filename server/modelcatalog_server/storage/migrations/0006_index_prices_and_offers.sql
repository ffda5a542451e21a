-- Why: models by a range of prices and in the order of their prices, and the offers of a model as they were at a past
-- revision, are found through an index, however many models there are.

CREATE INDEX models_metadata_price ON models_metadata (pricing_input, model_id);
CREATE INDEX model_versions_canonical ON model_versions (canonical_id) WHERE canonical_id IS NOT NULL;
-- Nothing asks by it: what a filter compares is the contract's name of a type.
DROP INDEX models_metadata_type;
