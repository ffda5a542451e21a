"""The seams: what the use cases ask of the world. Adapters in storage, modelsdev and cache fill them.

Every method may raise :class:`~modelcatalog_server.domain.errors.DatabaseUnavailableError` where it talks to the
database. No method waits longer than the bound its adapter was made with.
"""
