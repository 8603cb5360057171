"""The command line: `python app.py COMMAND`, or `reference-backend COMMAND` where it is installed.

May import everything but production. Read first: main.py.
"""
