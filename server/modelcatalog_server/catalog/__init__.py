"""Use cases of reading the catalog."""
