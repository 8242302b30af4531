"""Text of a growing answer."""

from hypothesis import given
from hypothesis import strategies as st

from moe_experts.engines.text import AnswerText


def test_a_character_is_never_cut():
    text = AnswerText(())
    data = 'größe 機械'.encode()
    pieces = [text.add(data[index:index + 1]) for index in range(len(data))]
    assert ''.join(pieces) + text.finish() == 'größe 機械'
    assert all('\ufffd' not in piece for piece in pieces)


def test_a_stop_string_is_found_across_pieces_and_never_shown():
    text = AnswerText(('END',))
    shown = ''.join(text.add(piece) for piece in (b'go on E', b'N', b'D and more'))
    assert text.stopped
    assert shown + text.finish() == 'go on '


@given(st.text(alphabet='ENDx', max_size=30), st.lists(st.integers(1, 5), max_size=30))
def test_what_is_shown_is_the_text_before_the_first_stop_string(whole, cuts):
    text, shown, rest = AnswerText(('END',)), '', whole
    for cut in [*cuts, len(whole)]:
        if text.stopped:
            break
        shown += text.add(rest[:cut].encode())
        rest = rest[cut:]
    shown += text.finish()
    assert shown == whole.split('END')[0]
