"""The backend. Rooms, from the street inwards: production, web, routes, services, repositories, infrastructure.

Imports go one way: app → routes → services → repositories → infrastructure; routes → web → infrastructure. Optional
rooms (delivery, openapi, production) import these, never the reverse; `app.py` alone names delivery and openapi.
Any module may import `errors`, `domain` and `settings`.
"""

__version__ = "1.0.0"
