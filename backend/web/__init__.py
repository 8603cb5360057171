"""How HTTP works: request, router, handler wrapper, middleware, response, validation, pagination.

The caller is the only noun of the domain here. May import: infrastructure, domain, errors, settings. Read first:
middleware.py, then router.py and handler.py.
"""
