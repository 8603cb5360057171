"""How HTTP works: request, router, handler wrapper, middleware, response, validation, pagination.

Knows no resource: of the domain's nouns only the caller and the idempotent request. May import: infrastructure, domain,
errors, settings. Read first: middleware.py, then router.py and handler.py.
"""
