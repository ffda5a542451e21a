-- Why: total_size is exact, so a filter is counted over the whole catalog, in whose rows are messages and records. Flags,
-- limits and prices, by which most filter, are told by the index of prices alone, in a twentieth of the pages. A row of an
-- index has at most 2,704 bytes, however long upstream's texts are, so few texts are in it; scores are joined by
-- canonical_id.

DROP INDEX models_metadata_price;
CREATE INDEX models_metadata_price ON models_metadata (pricing_input, model_id) INCLUDE (
    provider_id,
    removed_at,
    canonical_id,
    model_type,
    status,
    context_window,
    max_input_tokens,
    max_tokens,
    pricing_output,
    pricing_cache_read,
    pricing_cache_write,
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
    open_weights
);
