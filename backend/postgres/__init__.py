"""The same verbs on PostgreSQL, for several machines: the database, its migrations, limits that hosts share.

The package imports the core and production's pieces that know no SQLite; the core never imports it. Read README.md
first, then database.py.
"""
