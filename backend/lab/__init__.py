"""The workshop's lab: one request seen from inside, and storms of real requests against the service's promises.

The package imports the core; the core never imports it, except that the command line runs its two verbs. Nothing here
is for production. Read README.md first, then trace.py.
"""
