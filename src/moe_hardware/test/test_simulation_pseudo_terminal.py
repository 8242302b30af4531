"""The pseudo-terminal: raw bytes both ways, the link's life, the driver's baud rate."""

import os
import termios
import tty

import pytest

from moe_hardware.simulation.pseudo_terminal import PseudoTerminal


def test_bytes_pass_raw_in_both_directions_and_after_a_reopen(tmp_path):
    every_byte = bytes(range(256))
    with PseudoTerminal(tmp_path / 'device') as terminal:
        for _ in range(2):
            line = os.open(tmp_path / 'device', os.O_RDWR | os.O_NOCTTY)
            os.write(line, every_byte)
            assert terminal.read(5.0) == every_byte
            terminal.write(every_byte)
            assert os.read(line, 4096) == every_byte
            os.close(line)
        assert terminal.read(0.0) == b''


def test_the_link_is_made_replaced_and_removed(tmp_path):
    link = tmp_path / 'folder' / 'device'
    first = PseudoTerminal(link)
    second = PseudoTerminal(link)
    assert os.readlink(link) == str(second.path) != str(first.path)
    first.close()
    assert link.is_symlink(), 'the newer simulator has it'
    second.close()
    assert list(link.parent.iterdir()) == []


def test_a_file_in_place_of_the_link_is_left_alone(tmp_path):
    (tmp_path / 'device').write_text('precious')
    with pytest.raises(FileExistsError, match='is not a symlink'):
        PseudoTerminal(tmp_path / 'device')
    assert (tmp_path / 'device').read_text() == 'precious'


def test_the_drivers_baud_rate_is_seen(tmp_path):
    with PseudoTerminal(tmp_path / 'device') as terminal:
        line = os.open(tmp_path / 'device', os.O_RDWR | os.O_NOCTTY)
        tty.setraw(line)
        attributes = termios.tcgetattr(line)
        attributes[4] = attributes[5] = termios.B1000000
        termios.tcsetattr(line, termios.TCSANOW, attributes)
        assert terminal.baud_rate == 1_000_000
        os.close(line)


def test_what_nobody_reads_does_not_block_the_simulator(tmp_path):
    with PseudoTerminal(tmp_path / 'device') as terminal:
        for _ in range(100):
            terminal.write(bytes(1000))
