"""Redis: the only package that knows it. What it holds can always be had again, so it is never an error."""
