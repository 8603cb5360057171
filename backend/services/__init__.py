"""What the application does: rules, transactions, cache, events. Services know neither HTTP nor SQL.

May import: repositories, infrastructure, domain, errors, settings. Read first: products.py, then ledger.py.
"""
