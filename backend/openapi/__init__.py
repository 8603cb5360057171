"""The HTTP contract as a document, generated from the code that validates.

May import: web, infrastructure, domain, errors. Read first: document.py.
"""
