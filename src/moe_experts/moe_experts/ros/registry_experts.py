"""Services for experts, versions, aliases and the log."""

from __future__ import annotations

from typing import Any

from moe_experts.registry.entities import Version
from moe_experts.ros import registry_conversions as convert
from moe_experts.ros.registry_access import UNKNOWN, Access, Services
from moe_interfaces.srv import (
    CreateExpert,
    DeleteExpert,
    GetExpert,
    GetVersion,
    ListEvents,
    ListExperts,
    ListVersions,
    Promote,
    RegisterVersion,
    ResizeExpert,
    Rollback,
    SetAlias,
    UpdateExpert,
)


def _create(access: Access, request: Any, response: Any) -> None:
    registry, actor = access.registry, request.actor or UNKNOWN
    entity = registry.create(convert.definition(request.expert), request.size,
                             Version(request.artifact_path) if request.artifact_path else None, actor, request.reason)
    response.expert = convert.expert_message(entity)


def _get(access: Access, request: Any, response: Any) -> None:
    entity, versions = access.registry.versions.all_of(request.id, request.name)
    response.expert = convert.expert_message(entity)
    response.versions = [convert.version_message(version) for version in versions]


def _list(access: Access, request: Any, response: Any) -> None:
    page, response.total = access.registry.experts.page(
        request.domain, request.category, request.status, request.sort or 'name', request.offset, request.limit)
    response.experts = [convert.expert_message(entity) for entity in page]


def _update(access: Access, request: Any, response: Any) -> None:
    expert = request.expert
    response.expert = convert.expert_message(access.registry.experts.update(
        expert.id, expert.name, expert.row_version, convert.changes(expert, list(request.fields)),
        request.actor or UNKNOWN, request.reason))


def _delete(access: Access, request: Any, _response: Any) -> None:
    access.registry.experts.delete(request.id, request.name, request.hard, request.actor or UNKNOWN, request.reason)


def _resize(access: Access, request: Any, response: Any) -> None:
    response.version = convert.version_message(access.registry.versions.resize(
        request.id, request.name, request.size, request.actor or UNKNOWN, request.reason))


def _register(access: Access, request: Any, response: Any) -> None:
    response.version = convert.version_message(access.registry.versions.register(
        request.expert, convert.version_entity(request.version), request.alias, request.actor or UNKNOWN,
        request.reason))


def _get_version(access: Access, request: Any, response: Any) -> None:
    version, expert = access.registry.versions.get(request.expert, request.number, request.alias or 'champion')
    response.version, response.expert = convert.version_message(version), convert.expert_message(expert)


def _list_versions(access: Access, request: Any, response: Any) -> None:
    _expert, versions = access.registry.versions.all_of(name=request.expert)
    response.versions = [convert.version_message(version) for version in versions]


def _set_alias(access: Access, request: Any, response: Any) -> None:
    entity, response.previous_version = access.registry.versions.set_alias(
        request.expert, request.alias, request.version, request.expected_version, request.actor or UNKNOWN,
        request.reason)
    response.expert = convert.expert_message(entity)


def _promote(access: Access, request: Any, response: Any) -> None:
    entity, response.version, response.previous_version = access.registry.versions.promote(
        request.expert, request.actor or UNKNOWN, request.reason)
    response.expert = convert.expert_message(entity)


def _rollback(access: Access, request: Any, response: Any) -> None:
    entity, response.version, response.previous_version = access.registry.versions.rollback(
        request.expert, request.actor or UNKNOWN, request.reason)
    response.expert = convert.expert_message(entity)


def _list_events(access: Access, request: Any, response: Any) -> None:
    events, response.last_sequence = access.registry.events.after(request.after_sequence, request.expert,
                                                                  request.limit)
    response.events = [convert.event_message(event) for event in events]


SERVICES: Services = {
    'create_expert': (CreateExpert, _create), 'get_expert': (GetExpert, _get), 'list_experts': (ListExperts, _list),
    'update_expert': (UpdateExpert, _update), 'delete_expert': (DeleteExpert, _delete),
    'resize_expert': (ResizeExpert, _resize), 'register_version': (RegisterVersion, _register),
    'get_version': (GetVersion, _get_version), 'list_versions': (ListVersions, _list_versions),
    'set_alias': (SetAlias, _set_alias), 'promote': (Promote, _promote), 'rollback': (Rollback, _rollback),
    'list_events': (ListEvents, _list_events)}
