// The API's documentation from its own OpenAPI document; a robot is offline, so nothing is fetched from elsewhere.
const document_ = await (await fetch('/openapi.json')).json();

function element(tag, text = '', name = '') {
  const made = document.createElement(tag);
  made.textContent = text;
  made.className = name;
  return made;
}

function resolve(schema, depth = 0) {
  if (!schema || depth > 5) return {};
  if (schema.$ref) return resolve(document_.components.schemas[schema.$ref.split('/').pop()], depth);
  if (schema.anyOf) return schema.anyOf.map((part) => resolve(part, depth + 1));
  if (schema.type === 'array') return [resolve(schema.items, depth + 1)];
  if (schema.properties) {
    const required = new Set(schema.required || []);
    return Object.fromEntries(Object.entries(schema.properties).map(([name, part]) =>
      [required.has(name) ? `${name} (required)` : name, resolve(part, depth + 1)]));
  }
  const limits = ['const', 'enum', 'minimum', 'maximum', 'minLength', 'maxLength', 'pattern', 'default', 'description']
    .filter((key) => schema[key] !== undefined).map((key) => `${key} ${JSON.stringify(schema[key])}`).join(', ');
  return `${schema.type || 'any'}${limits ? `, ${limits}` : ''}`;
}

function show(path, method, operation) {
  const details = element('details');
  const summary = element('summary');
  summary.append(element('span', method.toUpperCase(), 'method'), ` ${path} — ${operation.summary || ''}`);
  details.append(summary);
  details.addEventListener('toggle', () => {
    if (details.childElementCount > 1) return;
    if (operation.description) details.append(element('p', operation.description));
    for (const row of operation.parameters || []) {
      details.append(element('p', `${row.in} ${row.name}${row.required ? ' (required)' : ''}: ${JSON.stringify(resolve(row.schema))}`));
    }
    const body = Object.values(operation.requestBody?.content || {})[0];
    if (body) details.append(element('h3', 'Body'), element('pre', JSON.stringify(resolve(body.schema), null, 2)));
    const answer = Object.entries(operation.responses).find(([status]) => status.startsWith('2'));
    const schema = answer && Object.values(answer[1].content || {})[0]?.schema;
    if (schema) details.append(element('h3', `Answer ${answer[0]}`), element('pre', JSON.stringify(resolve(schema), null, 2)));
  });
  return details;
}

document.getElementById('about').textContent = document_.info.description;
const all = Object.entries(document_.paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, operation]) => [`${method} ${path} ${operation.summary}`.toLowerCase(),
    show(path, method, operation)]));
document.getElementById('operations').append(...all.map(([, shown]) => shown));
document.getElementById('find').addEventListener('input', ({ target }) => {
  for (const [text, shown] of all) shown.hidden = !text.includes(target.value.toLowerCase());
});
