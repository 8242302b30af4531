"""The experts under llama_ros's names: `ros2 launch moe_bringup llama_compat.launch.py`, beside a running suite.

Clients of llama_ros find generate_response, generate_chat_completions, tokenize, detokenize, generate_embeddings,
rerank_documents, get_metadata, list_loras and update_loras below /llama. Goals that name no expert are answered by
`expert`.
"""

from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments and start one expert node as /llama."""
    registry = LaunchConfiguration('registry')
    return LaunchDescription([
        DeclareLaunchArgument('expert', default_value='general', description='answers goals that name no expert'),
        DeclareLaunchArgument('registry', default_value='/moe/registry', description='where the registry is'),
        DeclareLaunchArgument('log_level', default_value='info', description='of the node'),
        Node(package='moe_experts', executable='expert_node', name='llama', namespace='/', output='screen',
             respawn=True, respawn_delay=1.0, parameters=[{'experts.default': LaunchConfiguration('expert')}],
             remappings=[('registry/get_version', [registry, '/get_version']),
                         ('registry/events', [registry, '/events'])],
             ros_arguments=['--log-level', LaunchConfiguration('log_level')]),
    ])
