"""The modelcatalog service: a faithful, versioned copy of Models.dev in PostgreSQL, served over gRPC."""
