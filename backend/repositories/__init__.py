"""All SQL of the application: functions that take `tx`, one file a table. They never begin, commit or roll back.

May import: infrastructure.database, domain, errors.
"""
