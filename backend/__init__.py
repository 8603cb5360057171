"""The backend. Each package is a room, and imports between rooms go one way.

The core: app → routes → services → repositories → infrastructure; routes → web → infrastructure. The other rooms import
the core, never the reverse; only `app.py` names cli, delivery and openapi. Any module may import `errors`, `domain` and
`settings`.
"""

__version__ = "1.0.0"
