"""The backend. Rooms, from the street inwards: routes, services, repositories, infrastructure; `web` is the doorframe.

Imports go one way: app → routes → services → repositories → infrastructure.database; routes → web → infrastructure.
Anyone may import `errors`, `domain` and `settings`.
"""
