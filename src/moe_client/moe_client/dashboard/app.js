// The dashboard: one page over the gateway's API. Every text from outside goes in by textContent.
const $ = (id) => document.getElementById(id);
const api = { key: localStorage.getItem('moe-key') || '' };

function headers(more = {}) {
  return api.key ? { ...more, Authorization: `Bearer ${api.key}` } : more;
}

async function get(path) {
  return unwrap(await fetch(path, { headers: headers() }));
}

async function post(path, body = {}) {
  return unwrap(await fetch(path, {
    method: 'POST', headers: headers({ 'Content-Type': 'application/json' }), body: JSON.stringify(body) }));
}

async function unwrap(response) {
  if (response.status === 401) $('key').hidden = false;
  const envelope = await response.json();
  if (!envelope.success && envelope.error) throw new Error(envelope.error.message);
  return envelope.data;
}

function element(tag, text = '', name = '') {
  const made = document.createElement(tag);
  made.textContent = text;
  if (name) made.className = name;
  return made;
}

function fill(body, rows) {
  body.replaceChildren(...rows.map((cells) => {
    const row = document.createElement('tr');
    row.append(...cells.map((cell) => {
      if (cell instanceof Node) { const holder = element('td'); holder.append(cell); return holder; }
      return element('td', cell);
    }));
    return row;
  }));
}

// chat ---------------------------------------------------------------------------------------------------------------
const conversation = [];
let answering = null;

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split('\n\n');
    rest = parts.pop();
    for (const part of parts) {
      const data = part.replace(/^data: /, '');
      if (data !== '[DONE]') yield JSON.parse(data);
    }
  }
}

function describe(moe, reason) {
  const sure = `confidence ${moe.confidence.toFixed(2)}${moe.abstained ? ', out of every domain' : ''}`;
  const others = Object.entries(moe.alternatives || {}).filter(([name]) => name !== moe.expert).slice(0, 3)
    .map(([name, share]) => `${name} ${share.toFixed(2)}`).join(', ');
  return `${moe.expert}@${moe.version} · ${sure}${others ? ` · else: ${others}` : ''}${reason ? ` · ${reason}` : ''}`;
}

async function ask(prompt) {
  conversation.push({ role: 'user', content: prompt });
  const said = element('p', '', 'said');
  const who = element('p', '…', 'who');
  $('log').append(element('p', prompt, 'said user'), said, who);
  answering = new AbortController();
  $('stop').hidden = false;
  let moe = null;
  let reason = '';
  try {
    const response = await fetch('/v1/chat/completions', {
      method: 'POST', signal: answering.signal, headers: headers({ 'Content-Type': 'application/json' }),
      body: JSON.stringify({ model: $('expert').value, messages: conversation, stream: true }) });
    if (!response.ok) {
      if (response.status === 401) $('key').hidden = false;
      throw new Error((await response.json()).error.message);
    }
    for await (const chunk of events(response)) {
      if (chunk.error) throw new Error(chunk.error.message);
      const choice = chunk.choices[0];
      if (chunk.moe) moe = { ...moe, ...chunk.moe };
      if (choice?.delta.content) said.textContent += choice.delta.content;
      if (choice?.finish_reason) reason = choice.finish_reason;
      if (moe) who.textContent = describe(moe, reason);
      $('log').scrollTop = $('log').scrollHeight;
    }
  } catch (error) {
    who.textContent = error.name === 'AbortError' ? 'stopped' : error.message;
    who.classList.add('error');
  }
  if (said.textContent) conversation.push({ role: 'assistant', content: said.textContent });
  else conversation.pop();
  answering = null;
  $('stop').hidden = true;
  $('prompt').focus();
}

$('ask').addEventListener('submit', (event) => {
  event.preventDefault();
  const prompt = $('prompt').value.trim();
  if (!prompt || answering) return;
  $('prompt').value = '';
  ask(prompt);
});
$('prompt').addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && !event.shiftKey) { event.preventDefault(); $('ask').requestSubmit(); }
});
document.addEventListener('keydown', (event) => { if (event.key === 'Escape') answering?.abort(); });
$('stop').addEventListener('click', () => answering?.abort());
$('clear').addEventListener('click', () => { conversation.length = 0; $('log').replaceChildren(); });
$('key').addEventListener('click', () => {
  const key = window.prompt('API key (kept in this browser)', api.key);
  if (key === null) return;
  api.key = key.trim();
  localStorage.setItem('moe-key', api.key);
  location.reload();
});

// experts ------------------------------------------------------------------------------------------------------------
async function showExperts() {
  const { experts } = await get('/v1/experts?limit=1000&sort=id');
  const chosen = $('expert').value;
  $('expert').replaceChildren(...['auto', ...experts.map((row) => row.name)].map((name) => element('option', name)));
  $('expert').value = chosen;
  fill($('experts'), await Promise.all(experts.map(async (row) => {
    const [versions, test] = await Promise.all([
      get(`/v1/experts/${row.name}/versions`).then((found) => found.versions, () => []),
      get(`/v1/ab-tests/0?control=${row.name}`).then((found) => found.test, () => null)]);
    const aliases = Object.fromEntries(row.aliases.map((alias) => [alias.version, alias.name]));
    const shown = versions.map((version) =>
      `${version.number} ${version.quantization}${aliases[version.number] ? ` (${aliases[version.number]})` : ''}`).join(', ');
    const state = test && test.status === 'running'
      ? `${test.treatment} ${Math.round(test.share * 100)} %, ${test.control_outcomes}:${test.treatment_outcomes} ${test.verdict}`
      : row.base_expert ? `candidate of ${row.base_expert}` : '–';
    const buttons = element('span');
    const challenger = row.aliases.some((alias) => alias.name === 'challenger');
    if (row.base_expert || challenger) buttons.append(action('Promote', row.name, 'promote'));
    if (versions.length > 1) buttons.append(action('Roll back', row.name, 'rollback'));
    return [row.id, row.name, row.domain, row.status, row.champion_version || '–', shown || '–', state, buttons];
  })));
}

function action(label, name, verb) {
  const button = element('button', label);
  button.type = 'button';
  button.setAttribute('aria-label', `${label} ${name}`);
  button.addEventListener('click', async () => {
    if (!window.confirm(`${label} ${name}?`)) return;
    try {
      await post(`/v1/experts/${name}/${verb}`, { actor: 'dashboard' });
      await showExperts();
    } catch (error) { window.alert(error.message); }
  });
  return button;
}

// training -----------------------------------------------------------------------------------------------------------
const curves = new Map();

function progress(data) {
  if (!data.step) return;
  const points = curves.get(data.job_id) || { loss: [], validation: [] };
  curves.set(data.job_id, points);
  if (data.loss !== null) points.loss.push([data.step, data.loss]);
  if (data.validation_loss !== null) points.validation.push([data.step, data.validation_loss]);
  $('training-note').textContent = `Job ${data.job_id}: ${data.phase}, step ${data.step} of ${data.total_steps}, ` +
    `loss ${data.loss === null ? '–' : data.loss.toFixed(3)}, ${Math.round(data.tokens_per_second || 0)} tokens/s`;
  const all = [...points.loss, ...points.validation].map(([, value]) => value);
  const [low, high] = [Math.min(...all), Math.max(...all)];
  const last = Math.max(data.total_steps, data.step);
  const line = (rows) => rows.map(([step, value]) =>
    `${(400 * step) / last},${150 - 140 * ((value - low) / (high - low || 1))}`).join(' ');
  $('curve').setAttribute('points', line(points.loss));
  $('validation').setAttribute('points', line(points.validation));
}

async function showJobs() {
  const { jobs } = await get('/v1/training/jobs?limit=8');
  fill($('jobs'), jobs.map((job) => [job.id, job.expert, job.error_msg ? `${job.status}: ${job.error_msg}` : job.status,
    `${job.step}/${job.total_steps}`, job.loss === null ? '–' : job.loss.toFixed(3)]));
}

// robot --------------------------------------------------------------------------------------------------------------
const degrees = (radians) => (radians * 180) / Math.PI;

function showServos(data) {
  fill($('joints'), data.servos.map((servo) => [servo.joint, `${degrees(servo.position ?? 0).toFixed(1)}°`,
    servo.temperature ?? '–', (servo.voltage ?? 0).toFixed(1), servo.online ? (servo.hardware_error ? 'fault' : '') : 'offline']));
  $('robot-note').textContent = data.estop ? `E-stop: ${data.estop_reason || 'latched'}` : '';
  $('robot-note').className = data.estop ? 'error' : '';
}

function showOrientation({ w, x, y, z }) {
  const roll = degrees(Math.atan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y)));
  const pitch = degrees(Math.asin(Math.max(-1, Math.min(1, 2 * (w * y - z * x)))));
  const yaw = degrees(Math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)));
  $('orientation').textContent = `roll ${roll.toFixed(1)}°, pitch ${pitch.toFixed(1)}°, yaw ${yaw.toFixed(1)}°`;
  $('ball').style.transform = `rotate(${-roll}deg) translateY(${Math.max(-40, Math.min(40, pitch))}px)`;
}

async function showRobot() {
  await get('/v1/hardware/imu').then((imu) => showOrientation(imu.orientation), () => {});
  const response = await fetch('/v1/hardware/camera', { headers: headers() });
  if (!response.ok) { $('camera').hidden = true; return; }
  const before = $('camera').src;
  $('camera').src = URL.createObjectURL(await response.blob());
  $('camera').hidden = false;
  if (before.startsWith('blob:')) URL.revokeObjectURL(before);
}

for (const [id, path] of [['estop', '/v1/hardware/estop'], ['reset', '/v1/hardware/estop/reset']]) {
  $(id).addEventListener('click', () => post(path).then(
    (data) => { $('robot-note').textContent = data.message; },
    (error) => { $('robot-note').textContent = error.message; $('robot-note').className = 'error'; }));
}

// health -------------------------------------------------------------------------------------------------------------
function detail(key, value) {
  if (key.endsWith('_bytes')) return `${key.slice(0, -6)} ${Math.round(value / 1e6)} MB`;
  return `${key.replaceAll('_', ' ')} ${[value].flat().join(', ') || 'none'}`;
}

async function showHealth() {
  const health = (await (await fetch('/health')).json()).data;
  $('health').textContent = health.down.length ? `${health.status}: ${health.down.join(', ')} away` : health.status;
  $('health').className = health.status === 'ok' ? 'up' : 'down';
  $('components').replaceChildren(...Object.entries(health.components).flatMap(([name, { status, ...more }]) => [
    element('dt', name),
    element('dd', [status, ...Object.entries(more).map(([key, value]) => detail(key, value))].join(' · '), status)]));
}

// what comes by itself -----------------------------------------------------------------------------------------------
function listen() {
  const socket = new WebSocket(`${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/ws`);
  socket.addEventListener('open', () => socket.send(JSON.stringify({
    api_key: api.key, subscribe: ['training', 'inference', 'hardware'] })));
  socket.addEventListener('message', ({ data }) => {
    const { channel, event, data: value } = JSON.parse(data);
    if (channel === 'training') progress(value);
    else if (event === 'servos') showServos(value);
  });
  socket.addEventListener('close', () => setTimeout(listen, 2000));
}

function repeat(show, milliseconds) {
  const again = async () => {
    if (!document.hidden) await show().catch(() => {});
    setTimeout(again, milliseconds);
  };
  again();
}

listen();
repeat(showHealth, 2000);
repeat(showExperts, 10000);
repeat(showJobs, 5000);
repeat(showRobot, 1000);
