"""What the database says: functions that take `tx`. One file a table. They never open, commit or roll back.

May import: infrastructure.database, domain, errors.
"""
