// Synthetic checks: those that need somebody on the first page, a node's on its own, all of them at /checks.

import { fetchJson, listen, now, showFailure } from './app.js';
import { h, nodePath, replace, setText } from './dom.js';
import { ago, count, span } from './words.js';

const REFRESH_MS = 5000;
const MOST_ROWS = 500;
const LEVELS = { down: 'bad', unknown: 'warning', pending: 'note', maintenance: 'note', up: 'good' };

const stateWords = (one) => (one.state === 'up' && one.failing ? 'up, failing' : one.state);
const level = (one) => (one.state === 'up' && one.failing ? 'warning' : LEVELS[one.state]);

function counted(tenants) {
  const total = {};
  for (const { checks } of Object.values(tenants)) {
    for (const [state, n] of Object.entries(checks)) total[state] = (total[state] ?? 0) + n;
  }
  return total;
}

const inWords = (total) => Object.keys(LEVELS).filter((state) => total[state] > 0).map((state) => `${count(total[state])} ${state}`).join(' · ');

function detail(one) {
  const parts = [one.error];
  if (one.state === 'unknown') parts.push('its node does not report');
  if (one.certificate_expires_ms) {
    const left = one.certificate_expires_ms - now();
    if (left < 21 * 86400000) parts.push(left < 0 ? `certificate expired ${ago(-left)}` : `certificate expires in ${span(left)}`);
  }
  return parts.filter(Boolean).join(' · ');
}

function table(rows, withNode) {
  const heads = ['State', 'Check', 'Target', withNode && 'From', 'Since', 'Took', 'What is the matter'].filter(Boolean);
  return h('div', { class: 'scroll checks' }, h('table', {},
    h('thead', {}, h('tr', {}, heads.map((name) => h('th', { scope: 'col', class: name === 'Since' || name === 'Took' ? 'n' : null }, name)))),
    h('tbody', {}, rows.map((one) => h('tr', { 'data-state': one.state },
      h('td', {}, h('span', { class: 'say', 'data-level': level(one) }, stateWords(one))),
      h('td', {}, one.check, one.kind && one.kind !== one.check && h('span', { class: 'quiet' }, ` ${one.kind}`)),
      h('td', { class: 'target' }, one.instance),
      withNode && h('td', {}, h('a', { href: nodePath(one.tenant, one.node) }, one.node), h('span', { class: 'quiet' }, ` ${one.tenant}`)),
      h('td', { class: 'n' }, one.since_ms ? span(now() - one.since_ms) : '–'),
      h('td', { class: 'n' }, one.duration_seconds === null ? '–' : span(one.duration_seconds * 1000)),
      h('td', { class: 'quiet' }, detail(one)))))));
}

// A section that keeps itself up to date and takes no room while there are no checks. Without a node: what is not up.
export function checksSection(of) {
  const element = h('section', { id: 'checks', hidden: true });
  const query = of ? `?tenant=${encodeURIComponent(of.tenant)}&node=${encodeURIComponent(of.node)}` : '';
  let before;
  async function load() {
    const answer = await fetchJson(`/api/v1/status${query}`);
    const total = counted(answer.tenants);
    element.hidden = Object.keys(total).length === 0;
    const rows = answer.checks.filter((one) => of || one.state !== 'up' || one.failing).slice(0, MOST_ROWS);
    const key = JSON.stringify([total, rows.map((one) => ({ ...one, last_run_ms: 0, duration_seconds: 0 }))]);
    if (key === before) return;
    before = key;
    replace(element, h('h2', {}, 'Checks'),
      h('p', { class: 'facts' }, inWords(total), !of && [' · ', h('a', { href: '/checks' }, 'all checks')]),
      rows.length > 0 && table(rows, !of));
  }
  // The link's state says when the aggregator is gone.
  const again = () => load().catch(() => {});
  again();
  setInterval(again, REFRESH_MS);
  return element;
}

export async function checksView(view) {
  document.title = 'Checks · pegel';
  const words = h('p', {}, '');
  const filter = h('input', { type: 'search', placeholder: 'Filter by check, target, node, state', 'aria-label': 'Filter', input: () => render() });
  const list = h('div', { id: 'all-checks' });
  replace(view, h('div', { class: 'lede' }, h('div', {}, h('h1', {}, 'Checks'), words), h('label', {}, filter)), list);
  let answer;
  function render() {
    if (answer.matching === 0) {
      replace(list, h('div', { class: 'empty' }, h('h2', {}, 'No check runs.'),
        h('p', { class: 'quiet' }, 'Checks ask whether a service answers as its users need. They are a few lines of an agent\'s configuration:'),
        h('pre', {}, 'probes:\n  checks:\n    - name: shop\n      kind: http\n      targets: [https://shop.example/]')));
      return;
    }
    const wanted = filter.value.trim().toLowerCase();
    const text = (one) => `${one.check} ${one.instance} ${one.kind ?? ''} ${one.node} ${one.tenant} ${stateWords(one)} ${one.error ?? ''}`.toLowerCase();
    const shown = answer.checks.filter((one) => !wanted || text(one).includes(wanted));
    setText(words, inWords(counted(answer.tenants)));
    replace(list, table(shown.slice(0, MOST_ROWS), true),
      shown.length > MOST_ROWS && h('p', { class: 'quiet' }, `${count(shown.length - MOST_ROWS)} more: narrow the filter.`));
  }
  async function load() {
    answer = await fetchJson('/api/v1/status');
    filter.hidden = answer.matching === 0;
    render();
  }
  const again = () => load().catch((error) => showFailure(list, 'The checks could not be read.', error));
  await again();
  setInterval(again, REFRESH_MS);
  listen('', { fleet() {} });
}
