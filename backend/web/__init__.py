"""How HTTP works: request, router, handler wrapper, middleware, envelope, validation, pagination, openapi.

Knows no noun of the domain but the caller. May import: infrastructure, domain, errors, settings.
"""
