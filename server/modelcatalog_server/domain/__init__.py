"""What the service is about, in the standard library alone: models, refreshes, errors, ports."""
