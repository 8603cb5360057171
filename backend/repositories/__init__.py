"""All SQL of the application: functions that take `tx`, one file a table. They never begin, commit or roll back.

May import: domain, errors, and of infrastructure only database and ids. Read first: products.py, then orders.py.
"""
