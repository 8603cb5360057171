"""The HTTP contract as a document, written from the code that validates.

May import: web, infrastructure, domain, errors. Read first: document.py.
"""
