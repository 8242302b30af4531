"""A lifecycle node that owns a device: what is active drives it, what is inactive leaves it alone.

The endpoints exist from the start: who calls an inactive node is told so in words instead of waiting for a service.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

INACTIVE = 'The node is inactive and leaves the device alone; activate it (service ~/change_state).'


class ManagedNode(LifecycleNode):  # type: ignore[misc]
    """A lifecycle node with the parameter `autostart`.

    Args:
        name: of the node.

    A subclass declares its parameters and endpoints in its constructor, ends that with autostart(), and has begin()
    and end(). The transitions are those of the managed nodes of ROS 2: configure, activate, deactivate, cleanup,
    shutdown; the parameters are read-only, so configuring has nothing to read anew.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name, enable_logger_service=True)
        self.active = False
        self._change = self._service_change_state.callback
        self._service_change_state.callback = self._change_or_refuse
        self._autostart = bool(self.declare_parameter('autostart', True, ParameterDescriptor(
            description='configure and activate at once; false leaves the transitions to a manager',
            read_only=True)).value)

    @abstractmethod
    def begin(self) -> None:
        """Start to use the device; it may be absent."""

    @abstractmethod
    def end(self) -> None:
        """Let go of the device, safely."""

    def autostart(self) -> None:
        """Go to the state that the parameter asks for."""
        if self._autostart:
            self.trigger_configure()
            self.trigger_activate()
        else:
            self.get_logger().info('autostart is off; the node waits to be configured and activated.')

    def _change_or_refuse(self, request: Any, response: Any) -> Any:
        """Jazzy's rclpy raises where a state has no such transition, which would end the node; later ones refuse it."""
        try:
            return self._change(request, response)
        except rclpy_implementation.RCLError as error:
            self.get_logger().warning(str(error))
            response.success = False
            return response

    def on_activate(self, state: LifecycleState) -> Any:
        """Start to use the device."""
        self.begin()
        self.active = True
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> Any:
        """Let go of the device."""
        self._leave()
        return super().on_deactivate(state)

    def on_shutdown(self, state: LifecycleState) -> Any:
        """Let go of the device for good."""
        self._leave()
        return super().on_shutdown(state)

    def on_error(self, _state: LifecycleState) -> Any:
        """Let go of the device; the node may be configured again."""
        self._leave()
        return TransitionCallbackReturn.SUCCESS

    def close(self) -> None:
        """End of the process: let go of the device."""
        self._leave()

    def _leave(self) -> None:
        if self.active:
            self.active = False
            self.end()
