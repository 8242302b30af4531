"""Services for the router: samples, fits, decisions and corrections; and notes."""

from __future__ import annotations

from typing import Any

from moe_experts.ros import registry_conversions as convert
from moe_experts.ros.registry_access import UNKNOWN, Access, Services
from moe_interfaces.srv import (
    AddNotes,
    AddRouteSamples,
    CorrectRoute,
    GetRouterVersion,
    ListNotes,
    ListRoutes,
    ListRouteSamples,
    RecordRoutes,
    RegisterRouterVersion,
    RemoveNotes,
)


def _add_samples(access: Access, request: Any, response: Any) -> None:
    response.written = access.registry.routes.add_samples(map(convert.sample_entity, request.samples), UNKNOWN)


def _list_samples(access: Access, request: Any, response: Any) -> None:
    page, response.total, response.digest = access.registry.routes.samples(request.expert, request.offset,
                                                                           request.limit)
    response.samples = [convert.sample_message(sample) for sample in page]


def _register_version(access: Access, request: Any, response: Any) -> None:
    response.version = convert.fit_message(access.registry.routes.register_version(
        convert.fit_entity(request.version), 'router'))


def _get_version(access: Access, request: Any, response: Any) -> None:
    response.version = convert.fit_message(access.registry.routes.version(request.number))


def _record(access: Access, request: Any, response: Any) -> None:
    response.written = access.spool.record_routes([convert.route_entity(record) for record in request.records])


def _list(access: Access, request: Any, response: Any) -> None:
    page, response.total = access.registry.routes.page(request.expert, request.request_id, request.corrected_only,
                                                       request.offset, request.limit)
    response.records = [convert.route_message(route) for route in page]


def _correct(access: Access, request: Any, _response: Any) -> None:
    access.registry.routes.correct(request.request_id, request.expert, request.actor or UNKNOWN)


def _add_notes(access: Access, request: Any, response: Any) -> None:
    response.added, response.removed = access.registry.notes.add(
        [convert.note_entity(note) for note in request.notes], request.replace, request.actor or UNKNOWN)


def _list_notes(access: Access, request: Any, response: Any) -> None:
    page, response.total = access.registry.notes.page(request.expert, request.after_id, request.limit)
    response.notes = [convert.note_message(note) for note in page]


def _remove_notes(access: Access, request: Any, response: Any) -> None:
    response.removed = access.registry.notes.remove(request.expert, list(request.ids), list(request.sources),
                                                    request.actor or UNKNOWN)


SERVICES: Services = {
    'add_route_samples': (AddRouteSamples, _add_samples), 'list_route_samples': (ListRouteSamples, _list_samples),
    'register_router_version': (RegisterRouterVersion, _register_version),
    'get_router_version': (GetRouterVersion, _get_version), 'record_routes': (RecordRoutes, _record),
    'list_routes': (ListRoutes, _list), 'correct_route': (CorrectRoute, _correct),
    'add_notes': (AddNotes, _add_notes), 'list_notes': (ListNotes, _list_notes),
    'remove_notes': (RemoveNotes, _remove_notes)}
