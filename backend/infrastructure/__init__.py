"""Mechanisms that would fit any service: database, migrations, cache, rate limiter, tokens, passwords, logs.

Knows neither HTTP nor our nouns. May import: errors, settings.
"""
