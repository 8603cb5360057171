"""Keeps the core's promises with several workers, hostile clients and many waiting writers.

Each module says what the textbook version does wrong under load. The package imports the core; the core never imports
it. Read README.md first, then wiring.py.
"""
