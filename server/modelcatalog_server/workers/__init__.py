"""``serve --workers N``: processes that serve on one port, and the one that starts, watches and replaces them."""
