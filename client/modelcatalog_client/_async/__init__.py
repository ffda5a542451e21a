"""The asynchronous client. ``_sync`` is generated from it: change it here, then run tools/unasync_client.py."""
