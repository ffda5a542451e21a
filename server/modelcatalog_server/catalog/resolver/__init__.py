"""Which model a reference means, and which canonical model a served one is: by rules, without I/O.

``spelling`` reads an id, ``rules`` has the steps and how sure each is, ``matching`` compares two spellings,
``canonical`` and ``linking`` link served models to canonical ones, ``reference`` resolves what callers have in hand.
"""
