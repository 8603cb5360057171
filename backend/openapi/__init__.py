"""The HTTP contract as a document, written from the code that validates.

May import: web, domain, errors. Read first: document.py.
"""
