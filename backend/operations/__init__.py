"""What an operator needs: backup, verify and restore, metrics, housekeeping, deployment recipes.

The package imports the core; the core never imports it. `cli` and `production` put it to use. Read README.md first.
"""
