"""Mechanisms that would fit any service: database, migrations, cache, rate limiter, tokens, passwords, logs.

Knows neither HTTP nor the nouns. May import: errors, settings, and Timestamp of domain. Read first: database.py.
"""
