// The fleet: one line a node, those that need somebody first.

import { listen, now } from './app.js';
import { checksSection } from './checks.js';
import { h, meter, nodePath, replace, setAttribute, setText } from './dom.js';
import { ago, bytes, count, perSecond, percent, span } from './words.js';

// More lines than anybody reads; the filter finds the rest.
const MOST_ROWS = 500;
const LEVELS = { bad: 0, warning: 1, note: 2, good: 3 };

const COLUMNS = [
  { key: 'node', name: 'Node', of: (r) => `${r.node} ${r.tenant}`, up: true },
  { key: 'state', name: 'State', of: (r) => LEVELS[r.level], up: true },
  { key: 'cpu', name: 'CPU', number: true, of: (r) => r.live.cpu_busy_ratio ?? -1 },
  { key: 'memory', name: 'Memory', number: true, of: (r) => r.live.memory_used_ratio ?? -1 },
  { key: 'logs', name: 'Log entries', number: true, of: (r) => r.live.log_entries_per_second ?? -1 },
  { key: 'contact', name: 'Last contact', number: true, of: (r) => -r.last_contact_ms },
  { key: 'lag', name: 'Lag', number: true, of: (r) => r.lag_ms },
  { key: 'spooled', name: 'Spooled', number: true, of: (r) => r.spooled_bytes },
  { key: 'dropped', name: 'Dropped', number: true, of: (r) => r.dropped },
  { key: 'refused', name: 'Refused', number: true, of: (r) => r.rejected },
];

export function fleetView(view) {
  const rows = new Map();
  const lines = new Map();
  let sort = { key: 'state', up: true };
  let outputs = [];
  let agentAddress = '';

  const title = h('h1', {}, 'Fleet');
  const words = h('p', { id: 'summary' }, '');
  const filter = h('input', { type: 'search', placeholder: 'Filter by node, tenant, state', 'aria-label': 'Filter', input: () => render() });
  const outputList = h('ul', { class: 'outputs', 'aria-label': 'Outputs' });
  const heads = COLUMNS.map((column) => h('th', { class: column.number ? 'n' : null, scope: 'col' },
    h('button', { type: 'button', click: () => sortBy(column) }, column.name)));
  const body = h('tbody');
  const table = h('div', { class: 'fleet' }, h('table', { id: 'fleet' }, h('thead', {}, h('tr', {}, heads)), body));
  const more = h('p', { class: 'quiet' });
  const empty = h('div');
  replace(view, h('div', { class: 'lede' }, h('div', {}, title, words), h('label', {}, filter)), outputList, table, more, checksSection(), empty);

  function sortBy(column) {
    const up = sort.key === column.key ? !sort.up : column.up === true;
    sort = { key: column.key, up };
    render();
  }

  function compare(a, b) {
    const of = COLUMNS.find((column) => column.key === sort.key).of;
    const [x, y] = [of(a), of(b)];
    const order = x < y ? -1 : x > y ? 1 : 0;
    return (sort.up ? order : -order) || (a.node < b.node ? -1 : a.node > b.node ? 1 : a.tenant < b.tenant ? -1 : 1);
  }

  function render() {
    const all = [...rows.values()];
    const wanted = filter.value.trim().toLowerCase();
    const shown = all.filter((r) => !wanted || `${r.node} ${r.tenant} ${r.headline} ${r.version}`.toLowerCase().includes(wanted)).sort(compare);
    summary(all);
    COLUMNS.forEach((column, i) => setAttribute(heads[i], 'aria-sort', sort.key === column.key ? (sort.up ? 'ascending' : 'descending') : null));
    const elements = shown.slice(0, MOST_ROWS).map((row) => line(row).element);
    // Moving elements costs focus and layout: only when the order changed.
    if (elements.length !== body.children.length || elements.some((element, i) => body.children[i] !== element)) {
      body.replaceChildren(...elements);
    }
    table.hidden = all.length === 0;
    // Nobody misses a column of dashes.
    setAttribute(table, 'data-logs', all.some((r) => r.live.log_entries_per_second !== undefined) ? '' : null);
    filter.hidden = all.length === 0;
    const hidden = shown.length - elements.length;
    setText(more, hidden > 0 ? `${count(hidden)} more: narrow the filter.` : all.length > 0 && shown.length === 0 ? 'No node matches the filter.' : '');
    if (all.length === 0) showEmpty();
    else if (empty.firstChild) replace(empty);
    replaceOutputs();
  }

  function summary(all) {
    const connected = all.filter((r) => r.connected).length;
    const bad = all.filter((r) => r.level === 'bad').length;
    const late = all.filter((r) => r.level === 'warning').length;
    const parts = [];
    if (all.length > 0) {
      parts.push(`${count(all.length)} node${all.length === 1 ? '' : 's'}, ${connected === all.length ? 'all connected' : `${count(connected)} connected`}`);
      if (bad > 0) parts.push(`${count(bad)} need${bad === 1 ? 's' : ''} somebody`);
      if (late > 0) parts.push(`${count(late)} with a warning`);
      if (bad + late === 0) parts.push('nothing to do');
    }
    setText(words, parts.join(' · '));
    document.title = bad > 0 ? `(${bad}) pegel` : 'pegel';
  }

  function line(row) {
    const key = `${row.tenant}/${row.node}`;
    let known = lines.get(key);
    if (!known) {
      known = newLine(row);
      lines.set(key, known);
    }
    known.update(row);
    return known;
  }

  function newLine(first) {
    const tenant = h('span');
    const state = h('span', { class: 'say' });
    const cell = (name) => h('td', { class: 'n', 'data-name': name });
    const cells = Object.fromEntries(COLUMNS.slice(2).map((column) => [column.key, cell(column.name)]));
    const gauges = ['cpu', 'memory'].map((key) => {
      const [text, bar] = [document.createTextNode(''), meter()];
      cells[key].append(text, bar.element);
      return { text, bar, cell: cells[key] };
    });
    const element = h('tr', {},
      h('td', { class: 'node' }, h('a', { href: nodePath(first.tenant, first.node) }, first.node), tenant),
      h('td', { class: 'state' }, state), Object.values(cells));
    let row = first;
    const number = (td, n, text, loss) => {
      setText(td, n > 0 ? text(n) : '0');
      setAttribute(td, 'class', n > 0 ? (loss ? 'n loss' : 'n') : 'n zero');
    };
    return {
      element,
      tick: () => setText(cells.contact, ago(now() - row.last_contact_ms)),
      update(next) {
        row = next;
        setText(tenant, `${row.tenant} · ${row.version}`);
        setText(state, row.headline);
        setAttribute(state, 'data-level', row.level);
        [row.live.cpu_busy_ratio, row.live.memory_used_ratio].forEach((ratio, i) => {
          const { text, bar, cell: td } = gauges[i];
          const words = ratio === undefined ? '–' : percent(ratio);
          if (text.data !== words) text.data = words;
          bar.set(ratio);
          setAttribute(td, 'class', ratio === undefined ? 'n zero' : 'n');
        });
        const entries = row.live.log_entries_per_second;
        setText(cells.logs, entries === undefined ? '–' : perSecond(entries));
        setAttribute(cells.logs, 'class', entries === undefined ? 'n zero' : 'n');
        number(cells.lag, row.lag_ms >= 1000 ? row.lag_ms : 0, span);
        number(cells.spooled, row.spooled_bytes, bytes);
        number(cells.dropped, row.dropped, count, true);
        number(cells.refused, row.rejected, count, true);
        this.tick();
      },
    };
  }

  function replaceOutputs() {
    const key = JSON.stringify(outputs);
    if (outputList.dataset.key === key) return;
    outputList.dataset.key = key;
    replace(outputList, outputs.map((output) => h('li', { 'data-level': output.ok ? 'good' : 'bad' },
      h('span', { class: 'say', 'data-level': output.ok ? 'good' : 'bad' }, h('b', {}, output.name)), ` ${output.detail}`)));
  }

  function showEmpty() {
    if (empty.firstChild) return;
    const address = agentAddress || 'AGGREGATOR:4433';
    replace(empty, h('section', { class: 'empty', id: 'empty' },
      h('h2', {}, 'No agent yet.'),
      h('p', { class: 'quiet' }, 'This aggregator is up and waits for its first agent. Only nodes with a certificate of its authority can connect.'),
      h('ol', {},
        h('li', {}, 'On the machine that holds the authority, issue a certificate for the node:', h('pre', {}, 'pegel pki issue --tenant TENANT --node NODE')),
        h('li', {}, 'On the node, with the files that it wrote:', h('pre', {}, `pegel-agent run --aggregator ${address}`)),
        h('li', {}, 'Within seconds the node shows here, without reloading.')),
      h('p', { class: 'quiet' }, 'If it does not: the agent\'s log says why it cannot connect. Its UDP packets must reach this machine.')));
  }

  listen('', {
    fleet(event) {
      if (event.whole) rows.clear();
      for (const row of event.rows) rows.set(`${row.tenant}/${row.node}`, row);
      for (const [tenant, node] of event.gone) {
        rows.delete(`${tenant}/${node}`);
        lines.delete(`${tenant}/${node}`);
      }
      outputs = event.outputs;
      agentAddress = event.agent_address;
      render();
    },
  });
  setInterval(() => { for (const known of lines.values()) known.tick(); }, 1000);
}

