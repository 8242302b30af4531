"""Files with the headers of models and next to no weights."""

import json

import gguf
import numpy as np


def write_model(path, seed=0):
    """Write a GGUF file; another seed, another digest. Returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, 'llama')
    writer.add_type('model')
    writer.add_tensor('output.weight', np.full((4, 32), seed, dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_folder(folder):
    """Write a Hugging Face folder with one tensor; returns the folder."""
    folder.mkdir(parents=True)
    (folder / 'config.json').write_text(json.dumps({'architectures': ['LlamaForCausalLM'], 'model_type': 'llama'}))
    data = np.zeros((4, 8), dtype=np.float32).tobytes()
    header = json.dumps({'weight': {'dtype': 'F32', 'shape': [4, 8], 'data_offsets': [0, len(data)]}}).encode()
    (folder / 'model.safetensors').write_bytes(len(header).to_bytes(8, 'little') + header + data)
    return folder
