"""Rows in a pipe are plain and whole."""

from moe_client.cli.output import fail, rows


def test_rows_in_a_pipe_are_tab_separated_and_untruncated(capsys):
    long = 'x' * 500
    rows(('id', 'name'), [(1, long)])
    assert capsys.readouterr().out == f'id\tname\n1\t{long}\n'


def test_fail_prints_one_sentence_on_standard_error(capsys):
    assert fail('it broke.') == 1
    assert capsys.readouterr().err == 'moe: it broke.\n'
