"""The backend. Rooms, from the street inwards: server, web, routes, services, repositories, infrastructure.

Imports go one way: app → routes → services → repositories → infrastructure; routes → web ← server.
Anyone may import `errors`, `domain` and `settings`.
"""

__version__ = "1.0.0"
