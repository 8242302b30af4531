"""What a handler of a registry service is given, and how errors become responses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy.exc import DBAPIError

from moe_experts.registry.errors import DatabaseUnavailable, RegistryError
from moe_experts.registry.registry import Registry
from moe_experts.registry.spool import Spool

UNKNOWN = 'unknown'  # who asked without saying who it is


class Access:
    """The registry while it is open, and the way in for writes that must not be lost in any case."""

    def __init__(self) -> None:
        self.opened: Registry | None = None
        self.unavailable = 'The registry is still starting.'
        self.spool: Spool

    @property
    def registry(self) -> Registry:
        """The open registry; raises DatabaseUnavailable with host, port and cause."""
        if self.opened is None:
            raise DatabaseUnavailable(self.unavailable)
        return self.opened


Handler = Callable[[Access, Any, Any], None]
Services = dict[str, tuple[Any, Handler]]  # by name below registry/: interface and handler


def answer(access: Access, handle: Handler) -> Callable[[Any, Any], Any]:
    """Wrap a handler: errors become code and sentence, nothing is raised into rclpy."""
    def respond(request: Any, response: Any) -> Any:
        try:
            handle(access, request, response)
        except RegistryError as error:
            response.error_code, response.error_msg = error.code, str(error)
        except (DBAPIError, ValueError) as error:  # out of a column's range, NUL characters, NaN in JSON ...
            cause = (str(getattr(error, 'orig', error)).strip().splitlines() or ['no reason given'])[0]
            response.error_code = RegistryError.code
            response.error_msg = f'The request holds a value that cannot be stored: {cause}'
        return response
    return respond
