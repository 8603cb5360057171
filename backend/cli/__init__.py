"""The command line: `python app.py COMMAND`, or `reference-backend COMMAND` where it is installed.

May import every room but production and delivery. Read first: main.py.
"""
