"""Scalars of TensorBoard's event files, read by their records (tensorboard itself is not installed)."""

import struct

from tensorboardX.proto.event_pb2 import Event


def scalars(folder, tag):
    """(step, value) of a tag, in order."""
    found = []
    for path in sorted(folder.glob('events.out.tfevents.*')):
        data = path.read_bytes()
        while data:
            length, = struct.unpack('<Q', data[:8])
            event = Event.FromString(data[12:12 + length])
            data = data[16 + length:]
            found += [(event.step, value.simple_value) for value in event.summary.value if value.tag == tag]
    return found
