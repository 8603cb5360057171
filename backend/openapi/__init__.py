"""The HTTP contract as a document, generated from the code that validates, and the page that shows it.

May import: web, infrastructure, domain, errors. Read first: document.py.
"""
