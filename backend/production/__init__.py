"""How bytes become requests and answers bytes: our gunicorn worker, which no client can keep waiting.

Knows nothing of the application but its envelope. May import: web, infrastructure, domain, errors, settings.
"""
