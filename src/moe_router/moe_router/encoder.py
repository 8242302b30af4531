"""Sentences as vectors: all-MiniLM-L6-v2 by ONNX Runtime, mean over the tokens, unit length."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from moe_router.prepare_encoder import ENCODER, TOKENIZER

MAX_TOKENS = 256
_BATCH = 16  # larger ones are no faster on a CPU, and take memory


class Encoder:
    """The encoder of a models folder; raises FileNotFoundError with the remedy where it is not there."""

    def __init__(self, folder: Path, threads: int = 2) -> None:
        if not (folder / ENCODER).is_file():
            raise FileNotFoundError(f'{folder / ENCODER} is missing; run `./moe`, or moe_router\'s prepare_encoder.')
        made = (folder / ENCODER).stat()
        self.name = f'{ENCODER} {made.st_size} {made.st_mtime_ns}'  # changes with the file
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # spinning threads would take the cores from the experts
        options.add_session_config_entry('session.intra_op.allow_spinning', '0')
        options.enable_cpu_mem_arena = False  # it would keep what the largest batch took, and is no faster
        self._session = onnxruntime.InferenceSession(
            str(folder / ENCODER), options, providers=['CPUExecutionProvider'])
        self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._tokenizer.enable_padding()

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors (texts, 384) of unit length."""
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        out = np.empty((len(texts), 384), dtype=np.float32)
        for start in range(0, len(order), _BATCH):
            part = order[start:start + _BATCH]
            found = self._tokenizer.encode_batch([texts[index] for index in part])
            ids = np.array([one.ids for one in found], dtype=np.int64)
            mask = np.array([one.attention_mask for one in found], dtype=np.int64)
            states = self._session.run(None, {'input_ids': ids, 'attention_mask': mask})[0]
            weights = mask[:, :, None].astype(np.float32)
            means = (states * weights).sum(axis=1) / weights.sum(axis=1)
            out[part] = means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-9)
        return out
