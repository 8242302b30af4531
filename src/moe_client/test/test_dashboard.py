"""The page in a real browser, against the small suite; pictures of it are left among the test's files."""

import os
import re
import shutil
from pathlib import Path

import pytest

CHROMIUM = next((found for name in ('chromium', 'chromium-browser', 'google-chrome') if (found := shutil.which(name))),
                None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason='no chromium on this machine')
WAIT_MS = 60_000


@pytest.fixture(scope='module')
def browser():
    from playwright.sync_api import sync_playwright
    arguments = ['--no-sandbox'] if os.geteuid() == 0 else []
    with sync_playwright() as play:
        started = play.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield started
        started.close()


@pytest.fixture(scope='module')
def pictures():
    folder = Path(os.environ.get('MOE_TEST_ARTIFACTS') or Path(__file__).resolve().parents[3] / 'build' / 'moe_client')
    folder = folder / 'dashboard'
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.mark.parametrize(('name', 'options'), [
    ('desk', {'viewport': {'width': 1280, 'height': 900}}),
    ('dark', {'viewport': {'width': 1280, 'height': 900}, 'color_scheme': 'dark'}),
    ('phone', {'viewport': {'width': 390, 'height': 844}, 'is_mobile': True, 'has_touch': True}),
])
def test_a_question_by_keyboard_alone(browser, gateway, pictures, name, options):
    context = browser.new_context(**options)
    page = context.new_page()
    errors = []
    page.on('pageerror', lambda error: errors.append(str(error)))
    page.goto(gateway.url)
    page.wait_for_function("document.querySelectorAll('#experts tr').length >= 3", timeout=WAIT_MS)
    page.keyboard.press('Tab')
    page.keyboard.press('Enter')  # the link that leads to the prompt
    page.locator('#prompt').focus()
    page.keyboard.type('How do I read a JSON file in Python?')
    page.keyboard.press('Enter')
    page.wait_for_function("document.querySelector('.who')?.textContent.includes('stop')", timeout=WAIT_MS)
    who = page.locator('.who').first.inner_text()
    assert 'python@1' in who
    assert 'confidence' in who
    assert 'else:' in who
    assert page.locator('.said').nth(1).inner_text().strip()
    assert 'degraded' in page.locator('#health').inner_text()
    assert re.search(r'queue depth \d+ · .*memory \d+ MB', page.locator('#components').inner_text())
    assert page.evaluate('document.documentElement.scrollWidth <= window.innerWidth')
    page.screenshot(path=str(pictures / f'{name}.png'), full_page=True)
    assert not errors
    context.close()


def test_escape_stops_an_answer(browser, gateway):
    page = browser.new_page()
    page.goto(gateway.url)
    page.route('**/v1/chat/completions', lambda _route: None)  # an answer that does not come
    page.locator('#prompt').fill('Tell me a story.')
    page.keyboard.press('Enter')
    page.wait_for_selector('#stop:visible')
    page.keyboard.press('Escape')
    page.wait_for_function("document.querySelector('.who').textContent === 'stopped'")
    page.close()


def test_the_emergency_stop_says_what_came_of_it(browser, gateway):
    page = browser.new_page()
    page.goto(gateway.url)
    page.locator('#estop').click()
    page.wait_for_function("document.querySelector('#robot-note').textContent.includes('servos node')", timeout=WAIT_MS)
    page.close()


def test_the_documentation_needs_no_other_server(browser, gateway):
    page = browser.new_page()
    asked = []
    page.on('request', lambda request: asked.append(request.url))
    page.goto(f'{gateway.url}/docs')
    page.wait_for_function("document.querySelectorAll('#operations details').length > 40", timeout=WAIT_MS)
    assert all(url.startswith(gateway.url) for url in asked)
    page.close()
