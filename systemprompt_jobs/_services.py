"""Typed services for jobs, by svcs, with two of its habits changed.

A factory sees the error of the job it served, so that a transaction rolls back; and an error of
the clean-up counts, so that a run whose COMMIT failed has not succeeded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import svcs

from .errors import ServiceError

if TYPE_CHECKING:
    from types import TracebackType


class ServiceRegistry(svcs.Registry):
    """What plugins register their services in. Raises ServiceError for a type taken already."""

    def register_factory(self, svc_type: Any, factory: Any, **options: Any) -> None:
        """Register what makes a service; options are those of svcs."""
        self._refuse_second(svc_type)
        super().register_factory(svc_type, factory, **{"suppress_context_exit": False, **options})

    def register_value(self, svc_type: Any, value: object, **options: Any) -> None:
        """Register one object for all runs; options are those of svcs."""
        self._refuse_second(svc_type)
        super().register_value(svc_type, value, **{"suppress_context_exit": False, **options})

    def _refuse_second(self, svc_type: Any) -> None:
        if svc_type in self:
            name = getattr(svc_type, "__qualname__", repr(svc_type))
            raise ServiceError(f"the service {name} is registered already: only one plugin can")


class RunServices(svcs.Container):
    """The services of one run, closed with it."""

    def close(
        self,
        exc_type: type[BaseException] | None = None,
        exc_val: BaseException | None = None,
        exc_tb: TracebackType | None = None,
    ) -> None:
        """Clean up, last made first. Raise the first error, unless the job has one of its own."""
        errors: list[BaseException] = []
        for service, manager in reversed(self._on_close):
            try:
                service.close(manager, exc_type, exc_val, exc_tb)
            except BaseException as error:  # noqa: BLE001  # the others are cleaned up all the same
                if error is not exc_val:
                    errors.append(error)
                    error.add_note(f"while cleaning up the service {service.name}")
        self._on_close.clear()
        super().close()
        for failure in errors:
            if exc_val is None:
                raise failure
            exc_val.add_note(f"then cleaning up a service failed too: {failure!r}")
