"""What a worker says, over its lives."""

from moe_training.events import EVENTS, EventReader, EventWriter


def test_a_word_that_was_cut_off_costs_no_other(tmp_path):
    EventWriter(tmp_path).send(phase='train', step=1)
    path = tmp_path / EVENTS
    reader = EventReader(tmp_path)
    with path.open('a') as file:
        file.write('{"phase": "train", "st')  # a kill may end a write between two pages of the file
    assert reader.new() == [{'phase': 'train', 'step': 1}]
    later = EventReader(tmp_path, skip=True)
    EventWriter(tmp_path).send(phase='load')
    assert later.new() == reader.new() == [{'phase': 'load'}]
    assert EventReader(tmp_path).new() == [{'phase': 'train', 'step': 1}, {'phase': 'load'}]
    assert reader.new() == []


def test_whole_words_are_left_as_they_are(tmp_path):
    for phase in ('load', 'train'):
        EventWriter(tmp_path).send(phase=phase)
    assert (tmp_path / EVENTS).read_text() == '{"phase": "load"}\n{"phase": "train"}\n'
