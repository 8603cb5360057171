"""What it takes to keep the core's promises with several workers, hostile clients and crowds of writers.

Each module says what the textbook version does wrong under load. The room may import the core; the core never imports
it. Read README.md first, then wiring.py.
"""
