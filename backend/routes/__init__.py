"""What the URLs are: parse → call one service → answer. One file a resource, body schemas beside their handlers.

May import: web, services, domain, errors. Read first: products.py.
"""
