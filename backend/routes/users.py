"""Users: `/api/v1/users`."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar

from backend.domain import User, UserWithOrders
from backend.errors import Conflict, Forbidden, PreconditionFailed
from backend.routes.passwords import ChosenPassword, GivenPassword
from backend.services.password_rules import weakness
from backend.services.users import ADMIN_ONLY, Users, changes_own_email
from backend.web.constraints import Boolean, Choice, EmailAddress, ListOf, Name, Text
from backend.web.handler import responds
from backend.web.pagination import OffsetQuery, Page, offset_page
from backend.web.rate_limits import RateLimits
from backend.web.request import Request

ROLES = ("user", "admin")
RoleName = Annotated[str, Choice(ROLES)]


@dataclass(frozen=True)
class NewUser:
    email: EmailAddress
    password: ChosenPassword
    name: Name

    @staticmethod
    def conflicts(values: Mapping[str, Any]) -> Mapping[str, str]:
        password, email, name = (values.get(field) or "" for field in ("password", "email", "name"))
        error = weakness(password, email, name) if password else None
        return {"password": error} if error else {}


@dataclass(frozen=True)
class UserChanges:
    """`roles` and `active` are for admins. `current_password` is needed to change the caller's own `email` only."""

    admin_only: ClassVar = ADMIN_ONLY
    example: ClassVar = {"name": "Lady Grey"}

    name: Name | None = None
    email: EmailAddress | None = None
    roles: Annotated[tuple[str, ...], ListOf(Choice(ROLES), 1, 2)] | None = None
    active: Annotated[bool, Boolean()] | None = None
    current_password: GivenPassword | None = None


@dataclass(frozen=True)
class UserQuery(OffsetQuery):
    q: Annotated[str, Text(0, 100)] | None = None
    role: RoleName | None = None
    sort: Annotated[str, Choice(("createdAt", "-createdAt", "email", "-email"))] = "-createdAt"
    include: Annotated[str, Choice(("orders",))] | None = None


class UserRoutes:
    def __init__(self, users: Users, limits: RateLimits) -> None:
        self._users = users
        self._limits = limits

    def find(self, request: Request, user_id: str) -> User:
        own = request.user.user
        return own if user_id == own.id else self._users.get(user_id)

    @responds(201, Conflict, location="/api/v1/users")
    def create_user(self, request: Request, body: NewUser) -> User:
        """Sign up."""
        return self._users.sign_up(body.email, body.password, body.name)

    @responds(200)
    def list_users(self, request: Request, query: UserQuery) -> Page[User | UserWithOrders]:
        """All users; with `include=orders` each with the ten newest orders."""
        offset = min((query.page - 1) * query.page_size, 2**63 - 1)
        items, total = self._users.page(
            q=query.q,
            role=query.role,
            sort=query.sort,
            with_orders=query.include == "orders",
            limit=query.page_size,
            offset=offset,
        )
        return offset_page(request, query, items, total)

    @responds(200, etag=True)
    def get_current_user(self, request: Request) -> User:
        """The caller."""
        return request.user.user

    @responds(200, Forbidden, Conflict, PreconditionFailed, etag=True)
    def update_current_user(self, request: Request, body: UserChanges) -> User:
        """Change the caller's name or e-mail; a new e-mail needs the current password."""
        return self._update(request, request.user.user.id, body)

    @responds(200, etag=True)
    def get_user(self, request: Request, resource: User) -> User:
        """One user."""
        return resource

    @responds(200, Conflict, PreconditionFailed, etag=True)
    def update_user(self, request: Request, resource: User, body: UserChanges) -> User:
        """Change a user. `roles` and `active` are for admins; the caller's own e-mail needs the current password."""
        return self._update(request, resource.id, body)

    @responds(204, Conflict, PreconditionFailed)
    def delete_user(self, request: Request, resource: User) -> None:
        """Deactivate and anonymise a user, and erase the origins of its sessions."""
        self._users.delete(request.user, resource.id, request.precondition())

    def _update(self, request: Request, user_id: str, body: UserChanges) -> User:
        changes = given(body)
        password, wrong = changes.pop("current_password", None), None
        if changes_own_email(request.user, user_id, changes):
            self._limits.count_try(request)
            wrong = self._limits.wrong_passwords(request, request.user.user.email)
        return self._users.update(request.user, user_id, changes, request.precondition(), password, wrong)


def given(changes: Any) -> dict[str, Any]:
    """The fields of a PATCH that were sent."""
    return {f.name: value for f in fields(changes) if (value := getattr(changes, f.name)) is not None}
