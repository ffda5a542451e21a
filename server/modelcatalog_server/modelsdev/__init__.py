"""Models.dev: fetching its documents, decoding their records, and finding what differs from the catalog.

The only package that knows aiohttp and msgspec. What upstream's data looks like, irregularities included, is said where
it is handled: ``wire`` has the shapes, ``derive`` the meaning, ``decode`` the walk through a document.
"""
