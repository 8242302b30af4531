"""`with ExpertContext(5) as expert: expert.inference('...')`: an expert that is in memory just so long."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Any

from moe_client.client import Client
from moe_client.types import Generation


class ExpertContext:
    """Loads an expert and unloads it at the end, whatever happens in between; its memory is returned.

    Args:
        id_or_name: of the expert.
        client: to use; None = one of its own.

    Raises ExpertNotFound, ExpertNotReady on entering.
    """

    def __init__(self, id_or_name: int | str, client: Client | None = None) -> None:
        self._asked, self._client, self._own = id_or_name, client or Client(), client is None
        self.name = ''

    def __enter__(self) -> ExpertContext:
        with ExitStack() as undo:
            undo.callback(self._close)
            self.name = self._client.experts.name_of(self._asked)
            self._client.experts.load(self.name)
            undo.pop_all()
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None,
                 _trace: TracebackType | None) -> None:
        try:
            self._client.experts.unload(self.name)
        finally:
            self._close()

    def _close(self) -> None:
        if self._own:
            self._client.close()

    def inference(self, prompt: str, **options: Any) -> Generation:
        """Ask this expert; options as Inference.generate_stream."""
        return self._client.inference.generate(prompt, expert=self.name, **options)
