"""What several workers and hostile clients take: a gunicorn worker that no client keeps waiting.

Knows nothing of the application but its envelope. The core never imports it. Read first: gunicorn_worker.py.
"""
