"""Analysis of a dataset."""

import json

import pytest

from moe_training.dataset_analysis import analyse, language

ROWS = [('How do I list the topics of the robot?', 'Run ros2 topic list.'),
        ('How do I list the topics of the robot?', 'Run ros2 topic list.'),
        ('how do I list the topics of the robot', 'Run ros2 topic info.'),
        ('How do I list all the topics of the robot?', 'Run ros2 topic list.'),
        ('Wie starte ich den Roboter und die Kamera?', 'Mit ros2 launch.'), ('как дела и что это', 'хорошо')]


def write(path, rows):
    path.write_text(''.join(json.dumps({'prompt': p, 'completion': c}) + '\n' for p, c in rows))
    return path


def test_a_report_counts_what_is_there(tmp_path):
    path = write(tmp_path / 'rows.jsonl', ROWS)
    path.write_text(path.read_text() + 'not json\n')
    heldout = write(tmp_path / 'heldout.jsonl', [('WIE starte ich den Roboter und die Kamera', 'x'), ('new', 'y')])
    report = analyse(path, heldout, tmp_path / 'plot.png')
    assert (report['rows'], report['bad_rows'], report['problems'][0]['line']) == (7, 1, 7)
    assert report['duplicates'] == {'count': 1, 'first': [{'line': 2, 'of': 1}]}
    assert report['same_prompt_other_answer'] == {'count': 1, 'first': [{'line': 3, 'of': 1}]}
    assert report['languages'] == {'en': 4, 'de': 1, 'ru': 1}
    assert report['characters']['latin'] > report['characters']['cyrillic'] > 0
    assert report['leakage']['rows'] == 2
    assert report['leakage']['exact'] == {'count': 1, 'first': [{'line': 1, 'of': 5}]}
    assert sum(report['lengths']['completion_characters']['histogram']['counts']) == 6
    assert (tmp_path / 'plot.png').read_bytes().startswith(b'\x89PNG')
    json.dumps(report, allow_nan=False)


def test_near_duplicates_are_found_among_many(tmp_path):
    rows = [(f'question {n} about part {n * 7} of the machine in hall {n * 13} by the window', 'a') for n in range(300)]
    rows.append((rows[123][0] + ' please', 'a'))
    assert analyse(write(tmp_path / 'rows.jsonl', rows))['near_duplicates']['first'] == [{'line': 301, 'of': 124}]


@pytest.mark.parametrize(('text', 'name'), [('what is the time', 'en'), ('日本語のテスト', 'zh'), ('12 + 3', 'other'),
                                            ('où est la gare et comment', 'fr')])
def test_languages(text, name):
    assert language(text) == name
