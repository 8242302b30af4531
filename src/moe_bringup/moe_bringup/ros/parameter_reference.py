"""The configuration reference: what the nodes of a running suite declare, as Markdown.

`./moe up -d && ./moe exec python -m moe_bringup.ros.parameter_reference > docs/configuration.md` writes it anew;
a test compares the file with a running suite.
"""

from __future__ import annotations

import sys
from typing import Any

import rclpy
from rcl_interfaces.msg import ParameterDescriptor, ParameterType
from rcl_interfaces.srv import DescribeParameters, GetParameters, ListParameters
from rclpy.node import Node
from rclpy.parameter import parameter_value_to_python

from moe_bringup.process_table import NAMESPACE, process_table
from moe_bringup.settings import SETTINGS, TRAIN

TIMEOUT_S = 30.0
_TYPES = {ParameterType.PARAMETER_BOOL: 'bool', ParameterType.PARAMETER_INTEGER: 'integer',
          ParameterType.PARAMETER_DOUBLE: 'double', ParameterType.PARAMETER_STRING: 'string',
          ParameterType.PARAMETER_BYTE_ARRAY: 'bytes', ParameterType.PARAMETER_BOOL_ARRAY: 'bools',
          ParameterType.PARAMETER_INTEGER_ARRAY: 'integers', ParameterType.PARAMETER_DOUBLE_ARRAY: 'doubles',
          ParameterType.PARAMETER_STRING_ARRAY: 'strings'}
# What every node has from rclpy.
_ROS_OWN = ('use_sim_time', 'start_type_description_service', 'qos_overrides')


def described(node: Node, name: str) -> dict[str, tuple[ParameterDescriptor, Any]]:
    """Descriptor and present value of every parameter of a node, by name. Raises TimeoutError."""
    names = [parameter for parameter in _call(node, ListParameters, name, 'list_parameters').result.names
             if not parameter.startswith(_ROS_OWN)]
    descriptors = _call(node, DescribeParameters, name, 'describe_parameters', names=names).descriptors
    values = _call(node, GetParameters, name, 'get_parameters', names=names).values
    return {parameter: (descriptor, parameter_value_to_python(value))
            for parameter, descriptor, value in zip(names, descriptors, values)}


def _call(node: Node, interface: Any, owner: str, service: str, **fields: Any) -> Any:
    client = node.create_client(interface, f'/{NAMESPACE}/{owner}/{service}')
    try:
        if not client.wait_for_service(TIMEOUT_S):
            raise TimeoutError(f'The node {owner} is not there; start the suite with `moe up`.')
        future = client.call_async(interface.Request(**fields))
        rclpy.spin_until_future_complete(node, future, timeout_sec=TIMEOUT_S)
        if not future.done():
            raise TimeoutError(f'The node {owner} does not answer {service}.')
        return future.result()
    finally:
        node.destroy_client(client)


def reference(node: Node) -> str:
    """The whole page, from the running suite.

    Raises TimeoutError where a node is away, ValueError where settings.py has another default than the node.
    """
    parts = [_HEAD, _keys(), _PARAMETERS_HEAD]
    for process in process_table(True):
        if process.node:
            parts.append(_section(process.name, described(node, process.name), set(process.parameters)))
    return '\n'.join(parts)


def _keys() -> str:
    lines = ['| key | default | meaning | is |', '|---|---|---|---|']
    for setting in SETTINGS:
        owner = ('the process table' if not setting.owner else f'`moe train` --{setting.target.replace("_", "-")}'
                 if setting.owner == TRAIN else f'`{setting.target}` of {setting.owner}')
        lines.append(f'| `{setting.key}` | {_shown(setting.default)} | {_cell(setting.meaning)} | {owner} |')
    return '\n'.join(lines) + '\n'


def _section(name: str, parameters: dict[str, tuple[ParameterDescriptor, Any]], given: set[str]) -> str:
    lines = [f'### {name}', '', '| parameter | type | default | range | meaning |', '|---|---|---|---|---|']
    known = {setting.target: setting.default for setting in SETTINGS if setting.owner == name}
    for parameter, (descriptor, value) in sorted(parameters.items()):
        if parameter in given:
            default = _shown(known[parameter]) if parameter in known else 'by the process table'
        else:
            default = _shown(value)
            if parameter in known and known[parameter] != value:
                raise ValueError(f'{name} declares {parameter} with {value!r}, settings.py says {known[parameter]!r}.')
        read_only = '' if descriptor.read_only else ' May be set at run time.'
        lines.append(f'| `{parameter}` | {_TYPES[descriptor.type]} | {default} | {_range(descriptor)} | '
                     f'{_cell(descriptor.description)}{"." if read_only else ""}{read_only} |')
    return '\n'.join(lines) + '\n'


def _range(descriptor: ParameterDescriptor) -> str:
    for one in (*descriptor.integer_range, *descriptor.floating_point_range):
        return f'{one.from_value:g}..{one.to_value:g}'
    return ''


def _shown(value: Any) -> str:
    if isinstance(value, str) and '/hardware/' in value:
        value = f'$MOE_HOME/hardware/{value.rpartition("/hardware/")[2]}'
    if isinstance(value, float):
        value = float(f'{value:.6g}')
    if hasattr(value, 'tolist'):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return '`[' + ', '.join(f'{one:.6g}' if isinstance(one, float) else str(one) for one in value) + ']`'
    return f'`{str(value).lower() if isinstance(value, bool) else value}`' if value != '' else '`""`'


def _cell(text: str) -> str:
    return text.replace('|', '\\|')


_HEAD = '''# Configuration reference

Made by `python -m moe_bringup.ros.parameter_reference` from what the nodes of a running suite declare; do not edit it.

## One file for all

`moe up --config config.yaml`, or `config:=config.yaml` to a launch file. Start from
[config/moe.example.yaml](../config/moe.example.yaml), which holds every key with its default. An unknown key is refused
with the nearest right one. `system.processes` holds `nice`, `cpu_affinity` and `threads` by process.
'''
_PARAMETERS_HEAD = '''## Parameters of the nodes

Files of overrides stand in `config/`, one a node; `params_file:=FILE` of the launch files adds one of your own. What
may be set at run time is set by `ros2 param set /moe/NODE NAME VALUE`.
'''


def main() -> int:
    """Print the page."""
    rclpy.init()
    node = rclpy.create_node('parameter_reference')
    try:
        sys.stdout.write(reference(node))
    except (TimeoutError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
