const out = document.getElementById('said');
const ask = async (method, path, body, headers = {}) => {
  const answer = await fetch(path + location.search, {
    method, headers: {'content-type': 'application/json', ...headers}, body: body && JSON.stringify(body),
  });
  const text = await answer.text();
  const json = text ? JSON.parse(text) : null;
  if (!answer.ok) throw new Error(json && json.detail || 'HTTP ' + answer.status);
  return json;
};
const say = error => { out.textContent = error.message; out.className = 'bad'; };
document.querySelectorAll('button[data-path]').forEach(button => button.onclick = async () => {
  const body = button.dataset.body && JSON.parse(button.dataset.body);
  if (button.title && !confirm(button.title)) return;
  button.disabled = true;
  try { await ask('POST', button.dataset.path, body); location.reload(); }
  catch (error) { say(error); button.disabled = false; }
});
const form = document.getElementById('make');
if (form) {
  const {folder, audience} = form.elements;
  const option = (value, text) => { const o = document.createElement('option'); o.value = value; o.textContent = text; return o; };
  folder.onchange = async () => {
    audience.replaceChildren();
    try {
      for (const a of await ask('GET', '/folders/' + folder.value + '/audiences'))
        audience.append(option(a.audience_id, a.name + (a.delivered ? ' (' + a.size + ')' : ' (not delivered yet)')));
    } catch (error) { say(error); }
  };
  ask('GET', '/folders').then(folders => {
    const several = new Set(folders.map(f => f.origin)).size > 1;
    for (const f of folders) folder.append(option(f.id, several ? f.name + ' · ' + f.origin : f.name));
    if (folders.length) folder.onchange();
  }).catch(say);
  let key = crypto.randomUUID ? crypto.randomUUID() : String(Math.random());
  form.oninput = () => { key = crypto.randomUUID ? crypto.randomUUID() : String(Math.random()); };
  form.onsubmit = async event => {
    event.preventDefault();
    const list = form.elements.list.value.trim();
    const body = {
      audience_id: audience.value, list: /^\d+$/.test(list) ? {id: Number(list)} : {name: list},
      leaving: form.elements.leaving.value, members_before: form.elements.before.value, start: form.elements.start.value,
    };
    try { await ask('POST', '/syncs', body, {'idempotency-key': key}); location.reload(); } catch (error) { say(error); }
  };
}
