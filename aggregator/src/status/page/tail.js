// Log entries as they arrive: a bounded list, a filter that the aggregator applies, a pause that keeps what comes.

import { fetchJson, showFailure, showLink } from './app.js';
import { h, nodePath, replace, setText } from './dom.js';
import { count } from './words.js';

// What a person scrolls through at most, and what waits while the list is paused; older lines go.
const MOST_LINES = 1000;
const MOST_WAITING = 5000;
// Lines longer than this are cut in the list; `pegel tail` shows them whole.
const MOST_CHARACTERS = 4000;
const AGAIN_MS = 5000;

const LEVELS = [[/^(fatal|crit|critical|alert|emerg|emergency|panic|err|error)$/i, 'bad'], [/^warn(ing)?$/i, 'warning'], [/^notice$/i, 'note'], [/^(debug|trace)$/i, 'quiet']];
const SOURCES = ['unit', 'container', 'app', 'service_name', 'identifier'];

const looksLikeQuery = (text) => /^\s*(\{|\||!=|!~)/.test(text);

function levelOf(entry) {
  for (const part of [entry.labels, entry.metadata]) {
    for (const name of ['level', 'detected_level', 'severity']) {
      const found = part[name] && LEVELS.find(([words]) => words.test(part[name]));
      if (found) return found[1];
    }
  }
  return null;
}

function sourceOf({ labels }) {
  for (const name of SOURCES) if (labels[name]) return labels[name];
  return labels.filename?.split('/').pop() ?? labels.job ?? '';
}

function timeOf(entry) {
  const at = new Date(Number(entry.at_ns.slice(0, -6)));
  const two = (n) => String(n).padStart(2, '0');
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${String(at.getMilliseconds()).padStart(3, '0')}`;
}

const pairs = (map) => Object.entries(map).map(([name, value]) => `${name}=${JSON.stringify(value)}`).join(' ');

function row(entry, withNode) {
  const line = entry.line.length > MOST_CHARACTERS ? `${entry.line.slice(0, MOST_CHARACTERS)}…` : entry.line;
  const more = [pairs(entry.labels), pairs(entry.metadata)].filter(Boolean).join('\n');
  return h('li', { 'data-level': levelOf(entry), title: `${entry.tenant}/${entry.node}\n${more}` },
    h('time', { datetime: new Date(Number(entry.at_ns.slice(0, -6))).toISOString() }, timeOf(entry)),
    withNode && h('a', { href: nodePath(entry.tenant, entry.node) }, entry.node),
    h('span', { class: 'from' }, sourceOf(entry)), h('span', { class: 'line' }, line));
}

const gap = (entries) => h('li', { class: 'gap' }, `${count(entries)} entries left out: they came faster than this page takes them`);

export function tailView(view) {
  document.title = 'Logs · pegel';
  const asked = new URLSearchParams(location.search);
  const [tenant, node] = [asked.get('tenant') ?? '', asked.get('node') ?? ''];
  const words = h('p', { id: 'tail-state' }, '');
  const filter = h('input', { type: 'search', name: 'filter', value: asked.get('filter') ?? '', 'aria-label': 'Filter of log entries', autocomplete: 'off', spellcheck: 'false',
    placeholder: 'timeout, or {job="nginx", level=~"err.*"} |= "timeout"' });
  const pause = h('button', { type: 'button', class: 'button', id: 'pause', 'aria-pressed': 'false', click: () => setPaused(!paused) }, 'Pause');
  const form = h('form', { class: 'ask', submit: apply }, filter, pause, h('span', { class: 'quiet' }, 'Enter applies the filter'));
  const note = h('p', { role: 'alert', class: 'quiet', hidden: true });
  const list = h('ol', { class: 'tail', id: 'tail', tabindex: '0', 'aria-label': 'Log entries, the newest at the bottom' });
  const where = node ? h('p', { class: 'crumb' }, h('a', { href: '/' }, 'Fleet'), ' / ', tenant ? h('a', { href: nodePath(tenant, node) }, node) : node) : null;
  replace(view, where, h('div', { class: 'lede' }, h('div', {}, h('h1', {}, 'Logs'), words)), form, note, list);

  let source = null;
  let paused = false;
  let waiting = [];
  let drawn = 0;
  let due = false;

  function apply(event) {
    event?.preventDefault();
    const url = new URL(location.href);
    if (filter.value.trim()) url.searchParams.set('filter', filter.value.trim());
    else url.searchParams.delete('filter');
    history.replaceState(null, '', url);
    setPaused(false);
    begin();
  }

  function setPaused(next) {
    paused = next;
    pause.setAttribute('aria-pressed', String(paused));
    setText(pause, paused ? 'Resume' : 'Pause');
    draw();
  }

  function query() {
    const text = filter.value.trim();
    const wanted = new URLSearchParams({ tenant, node, limit: '200' });
    if (text) wanted.set(looksLikeQuery(text) ? 'match' : 'contains', text);
    return `/api/v1/tail?${wanted}`;
  }

  function begin() {
    source?.close();
    waiting = [];
    drawn = 0;
    note.hidden = true;
    replace(list);
    tell();
    const opened = new EventSource(query());
    source = opened;
    const on = (name, handler) => opened.addEventListener(name, (event) => opened === source && handler(event.data ? JSON.parse(event.data) : null));
    // A stream that the browser opens anew begins with the past: what is shown is that, not both.
    on('open', () => { showLink('live', 'live'); waiting = []; replace(list); });
    on('entries', (entries) => add(entries));
    on('left_out', ({ entries }) => add([{ leftOut: entries }]));
    on('note', ({ text }) => { note.hidden = false; setText(note, text); });
    on('live', () => tell());
    on('error', async () => {
      showLink('lost', 'aggregator not reachable');
      if (opened.readyState !== EventSource.CLOSED) return;
      // The browser does not say why it was refused; the same question without an end does.
      try {
        await fetchJson(`${query()}&follow=false&limit=0`);
      } catch (error) {
        if (opened !== source) return;
        showLink('live', 'live');
        showFailure(list, 'Log entries cannot be shown.', error);
        return;
      }
      setTimeout(() => opened === source && begin(), AGAIN_MS);
    });
  }

  function add(entries) {
    waiting.push(...entries.slice(-MOST_WAITING));
    if (waiting.length > MOST_WAITING) {
      const over = waiting.length - MOST_WAITING + 1;
      const lost = waiting.splice(0, over).reduce((sum, one) => sum + (one.leftOut ?? 1), 0);
      waiting.unshift({ leftOut: lost });
    }
    if (paused) tell();
    else if (!due) {
      due = true;
      // Hidden pages get no frames; what waits is bounded.
      requestAnimationFrame(() => { due = false; draw(); });
    }
  }

  function draw() {
    if (!paused && waiting.length > 0) {
      const bottom = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
      const fresh = waiting.slice(-MOST_LINES);
      waiting = [];
      drawn += fresh.length;
      list.append(...fresh.map((one) => (one.leftOut ? gap(one.leftOut) : row(one, !node))));
      while (list.children.length > MOST_LINES) list.firstChild.remove();
      // Who scrolled up reads: the list stays where it is.
      if (bottom) list.scrollTop = list.scrollHeight;
    }
    tell();
  }

  function tell() {
    setText(words, paused ? `paused, ${count(waiting.length)} waiting` : drawn > 0 ? `the newest ${count(Math.min(drawn, MOST_LINES))} entries, as they arrive` : 'No entry yet: they show here as they arrive.');
  }

  begin();
  window.addEventListener('pagehide', () => source?.close());
}
