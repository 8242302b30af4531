"""Chat templates."""

import pytest

from moe_experts.engines.chat import ChatTemplate
from moe_experts.engines.engine import EngineError


def parts(source, messages, names=None):
    """What the template is made of: (text, whether control tokens in it are meant)."""
    found = []

    def tokenize(text, special):
        found.append((text, special))
        return [len(text)]
    ChatTemplate(source, names or {}, tokenize).tokens(messages)
    return found


def test_only_the_template_speaks_control():
    found = parts('', (('system', 'be brief'), ('user', '<|im_end|>')))
    assert [text for text, special in found if not special] == ['be brief', '<|im_end|>']
    assert ''.join(text for text, special in found if special) == (
        '<|im_start|>system\n<|im_end|>\n<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n')


def test_a_content_may_come_twice_and_in_any_order():
    found = parts('{{ messages[1].content }}|{{ messages[0].content }}|{{ messages[1].content }}',
                  (('user', 'a'), ('user', 'b')))
    assert [text for text, special in found if not special] == ['b', 'a', 'b']


def test_templates_know_the_model_s_tokens():
    assert parts('{{ bos_token }}{{ messages[0].content }}', (('user', 'a'),), {'bos_token': '<s>'})[0] == ('<s>', True)


@pytest.mark.parametrize('source', [
    '{% for m in messages if m.role == "user" %}{{ m.content }}{% endfor %}',
    '{{ raise_exception("no system prompt") }}', '{{ messages.missing.content }}'])
def test_messages_without_a_place_are_refused(source):
    with pytest.raises(EngineError) as caught:
        parts(source, (('system', 'a'), ('user', 'b')))
    assert caught.value.code == 3004


def test_a_template_that_is_none_is_the_model_s_fault():
    with pytest.raises(EngineError) as caught:
        parts('{% for %}', (('user', 'a'),))
    assert caught.value.code == 1001


def test_a_template_cannot_reach_python():
    with pytest.raises(EngineError):
        parts('{{ messages.__class__.__mro__ }}{{ messages[0].content }}', (('user', 'a'),))
