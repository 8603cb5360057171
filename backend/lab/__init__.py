"""The workshop's lab: one request seen from inside, and storms of real requests against the service's promises.

The package imports the core and production; only the command line imports it, for two commands. Nothing here is for
production. Read README.md first, then trace.py.
"""
