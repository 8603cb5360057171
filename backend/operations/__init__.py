"""What an operator needs: backup, verify and restore, metrics, housekeeping, deployment recipes.

The package imports the core, never the reverse; `cli`, `production` and `postgres` use it. Read README.md first.
"""
