"""What the application does: rules, transactions, cache, events. No HTTP word, no SQL text.

May import: repositories, infrastructure, domain, errors, settings.
"""
