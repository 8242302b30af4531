"""A bundle for a bug report: what runs, with what, and what it said; without secrets."""

from __future__ import annotations

import io
import json
import os
import platform
import re
import tarfile
import time
from importlib.metadata import distributions
from pathlib import Path

from moe_client import suite
from moe_client.doctor import findings

LOG_BYTES = 200_000
ENVIRONMENT = re.compile(r'^(ROS|RMW|MOE|AMENT|FASTDDS|CYCLONEDDS|OMP|MKL|CUDA|VIRTUAL_ENV|LANG|PYTHONPATH)')
SECRETS = (
    (re.compile(r'(?i)\b(\w*(?:api[_-]?key|password|passwd|secret|token|authorization)\w*["\']?\s*[=:]\s*["\']?)'
                r'(?:bearer\s+)?[^\s"\',}]+'), r'\1<removed>'),
    (re.compile(r'(?i)(bearer\s+)[\w.~+/=-]+'), r'\1<removed>'),
    (re.compile(r'(\w+://[^\s:/@]+:)[^\s@]+(@)'), r'\1<removed>\2'),
    (re.compile(r'\b(moe_\d+_|sk-|hf_|ghp_|github_pat_)[\w-]{8,}'), r'\1<removed>'),
    (re.compile(r'(:\*:\*:)\S+'), r'\1<removed>'),
)


def without_secrets(text: str) -> str:
    """Replace keys, tokens and passwords."""
    for pattern, replacement in SECRETS:
        text = pattern.sub(replacement, text)
    return text


def write_report(path: Path) -> list[str]:
    """Write the bundle, a .tar.gz; returns the names of its parts."""
    home = suite.home()
    parts = {
        'check.txt': '\n'.join(f'{row.state}\t{row.name}\t{row.found}\t{row.remedy}' for row in findings()),
        'system.txt': f'{platform.platform()}\nPython {platform.python_version()}\ncores {os.cpu_count()}\n',
        'packages.txt': '\n'.join(sorted({f'{row.name}=={row.version}' for row in distributions()})),
        'environment.txt': '\n'.join(f'{key}={value}' for key, value in sorted(os.environ.items())
                                     if ENVIRONMENT.match(key)),
        'processes.json': json.dumps([{**vars(row), 'memory_bytes': row.resident_bytes} for row in suite.processes()]),
    }
    for log in sorted((home / 'logs').glob('*.log')):
        with log.open('rb') as file:
            file.seek(max(0, log.stat().st_size - LOG_BYTES))
            parts[f'logs/{log.name}'] = file.read().decode(errors='replace')
    part = path.with_name(path.name + '.part')
    with tarfile.open(part, 'w:gz') as bundle:
        for name, text in parts.items():
            content = without_secrets(text).encode()
            entry = tarfile.TarInfo(f'moe-report/{name}')
            entry.size, entry.mtime = len(content), int(time.time())
            bundle.addfile(entry, io.BytesIO(content))
    part.replace(path)
    return list(parts)
