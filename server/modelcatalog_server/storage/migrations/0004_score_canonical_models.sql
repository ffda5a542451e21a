-- Why: places and normalised scores need to know which results may be compared, and what is derived of a model whoever
-- serves it belongs to the canonical model: a score that moves must not be a change of every offer.

ALTER TABLE model_benchmarks
-- The reviewed name; NULL until a refresh has derived it.
ADD COLUMN canonical_name text COLLATE "C",
-- What results that may be compared have in common; NULL where the direction of the metric is not known, or the score is
-- no number.
ADD COLUMN series text COLLATE "C",
ADD COLUMN higher_is_better boolean,
-- Models in the series.
ADD COLUMN series_size integer;

ALTER TABLE canonical_models
ADD COLUMN popularity_score numeric,
ADD COLUMN benchmark_score numeric;

ALTER TABLE canonical_model_versions
ADD COLUMN popularity_score numeric,
ADD COLUMN benchmark_score numeric;
