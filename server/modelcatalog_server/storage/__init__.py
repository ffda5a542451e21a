"""PostgreSQL: the only package that knows psycopg and SQL."""
