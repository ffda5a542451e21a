# Generated from ../_async by tools/unasync_client.py: do not edit.
"""The synchronous client."""
