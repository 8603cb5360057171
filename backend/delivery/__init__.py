"""How events leave the process: the relay delivers them from the outbox to the audit log, the mailer and webhooks.

May import: services, repositories, infrastructure, domain, errors, settings. Read first: relay.py.
"""
