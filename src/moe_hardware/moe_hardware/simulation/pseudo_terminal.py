"""A serial line without hardware: a pseudo-terminal in raw mode with a symlink of its own.

A simulator holds the master end; a driver opens the link as if it were /dev/ttyUSB0.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import termios
import tty
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

# POSIX names the speeds by constants that need not equal the number.
_SPEEDS = {getattr(termios, name): int(name[1:]) for name in dir(termios) if name[0] == 'B' and name[1:].isdigit()}


class PseudoTerminal:
    """A pty whose slave a driver may open, close and open again; the simulator reads and writes bytes here.

    Args:
        link: symlink made to the slave once it is ready, atomically, replacing an older symlink; None makes none.

    Raises:
        FileExistsError: link exists and is not a symlink; it is left alone.
    """

    def __init__(self, link: Path | None = None) -> None:
        if link is not None and os.path.lexists(link) and not link.is_symlink():
            raise FileExistsError(f'{link} exists and is not a symlink; name another --link or remove it.')
        # The slave stays open here too: without it every read is EIO until a driver comes and after it leaves.
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.path = Path(os.ttyname(self._slave))
        self._link = link
        if link is not None:
            link.parent.mkdir(parents=True, exist_ok=True)
            temporary = link.with_name(f'.{link.name}.{os.getpid()}')
            temporary.unlink(missing_ok=True)
            temporary.symlink_to(self.path)
            temporary.replace(link)

    def __enter__(self) -> PseudoTerminal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    @property
    def baud_rate(self) -> int:
        """Speed that the driver has set [baud]; a pty carries bytes at any speed, a simulator compares."""
        return _SPEEDS.get(termios.tcgetattr(self._slave)[5], 0)

    def read(self, timeout_s: float | None = None) -> bytes:
        """Return what has come, waiting up to timeout_s [s] (None: for ever); b'' when nothing came."""
        ready, _, _ = select.select([self._master], [], [], timeout_s)
        if not ready:
            return b''
        with contextlib.suppress(BlockingIOError):
            return os.read(self._master, 4096)
        return b''

    def write(self, data: bytes) -> None:
        """Send bytes to the driver; what nobody reads is lost when the buffer is full, as on a wire."""
        with contextlib.suppress(BlockingIOError):
            while data:
                data = data[os.write(self._master, data):]

    def close(self) -> None:
        """Hang up and remove the link, unless another simulator has taken it over."""
        if self._link is not None:
            with contextlib.suppress(OSError):
                if os.readlink(self._link) == str(self.path):
                    self._link.unlink()
            self._link = None
        for end in (self._slave, self._master):
            with contextlib.suppress(OSError):
                os.close(end)


def driven(path: Path) -> bool:
    """Whether another process has the slave at this path open."""
    for descriptor in Path('/proc').glob('[0-9]*/fd/*'):
        with contextlib.suppress(OSError):  # processes and their files come and go
            if os.readlink(descriptor) == str(path) and descriptor.parts[2] != str(os.getpid()):
                return True
    return False


@contextlib.contextmanager
def until_signalled() -> Iterator[None]:
    """Run the body until it ends or SIGINT, SIGTERM or SIGHUP comes; a signal leaves it quietly."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.default_int_handler) for number in numbers]
    try:
        with contextlib.suppress(KeyboardInterrupt):
            yield
    finally:
        for number, handler in zip(numbers, before):
            signal.signal(number, handler)
