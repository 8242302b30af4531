"""Why a device cannot be used, in words."""

import errno
import grp
import subprocess
import sys

from moe_hardware.device_access import busy, explain, holder


def test_permission_denied_names_the_group_of_the_device(tmp_path):
    device = tmp_path / 'device'
    device.touch()
    device.chmod(0o660)
    group = grp.getgrgid(device.stat().st_gid).gr_name
    sentence = explain(str(device), PermissionError(errno.EACCES, 'denied'), 'plug it in')
    assert f'No permission for {device}; ' in sentence
    assert (f'usermod -aG {group} ' in sentence) or (group == 'root' and 'udev rule' in sentence)
    device.chmod(0o600)
    assert 'udev rule' in explain(str(device), PermissionError(errno.EACCES, 'denied'), 'plug it in')


def test_absent_busy_and_others(tmp_path):
    device = str(tmp_path / 'device')
    assert explain(device, OSError(errno.ENOENT, ''), 'plug it in') == f'{device} does not exist; plug it in.'
    (tmp_path / 'device').touch()
    assert 'is busy' in explain(device, OSError(errno.EBUSY, 'busy'), 'plug it in')
    assert 'cannot be opened' in explain(device, OSError(errno.EIO, 'I/O error'), 'plug it in')


def test_the_holder_is_found_and_is_never_this_process(tmp_path):
    path = tmp_path / 'device'
    path.touch()
    (tmp_path / 'link').symlink_to(path)
    with path.open() as mine:
        assert mine and holder(str(path)) is None
        assert 'another process' in busy(str(path))
    with subprocess.Popen([sys.executable, '-c', 'import sys; f = open(sys.argv[1]); print(1, flush=True); input()',
                           str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        assert holder(str(tmp_path / 'link'))[0] == other.pid
        assert f'process {other.pid} (' in busy(str(path))
        other.communicate(b'\n')
