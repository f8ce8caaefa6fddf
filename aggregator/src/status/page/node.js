// One node: what is the matter, how it is doing, and its books. And the list of what was refused.

import { fetchJson, listen, now, showFailure } from './app.js';
import { checksSection } from './checks.js';
import { byteScale, chart, loadScale } from './chart.js';
import { h, meter, nodePath, prose, replace, setText } from './dom.js';
import { ago, byteRate, bytes, count, instant, load, perSecond, percent, span } from './words.js';

// Fills the chart's gaps that events left, after a sleep of the machine for example.
const REFETCH_MS = 120000;
const MOST_SERIES = 200;

export async function nodeView(view, tenant, node) {
  const path = `/api/v1${nodePath(tenant, node)}`;
  document.title = `${node} · pegel`;
  let state;
  let history;
  try {
    state = await fetchJson(path);
  } catch (error) {
    showFailure(view, `Nothing is known of ${node}.`, error);
    return;
  }
  history = state.history;

  const facts = h('p', { class: 'facts' });
  const findings = h('ul', { class: 'findings', id: 'findings', 'aria-live': 'polite' });
  const ratio = () => 1;
  const charts = [
    chart('CPU busy', [{ name: 'cpu_busy_ratio', format: percent }], ratio),
    chart('Memory used', [{ name: 'memory_used_ratio', format: percent }], ratio),
    chart('Disk', [
      { name: 'disk_read_bytes_per_second', label: 'read', format: byteRate },
      { name: 'disk_written_bytes_per_second', label: 'written', format: byteRate }], byteScale),
    chart('Network', [
      { name: 'network_received_bytes_per_second', label: 'in', format: byteRate },
      { name: 'network_sent_bytes_per_second', label: 'out', format: byteRate }], byteScale),
    chart('Load, 1 min', [{ name: 'load1', format: load }], loadScale(() => state.machine?.cpus)),
    chart('Fullest file system', [{ name: 'filesystem_used_ratio', format: percent }], ratio),
  ];
  const noCharts = h('p', { class: 'quiet' });
  const chartBox = h('div', { class: 'charts', id: 'charts' }, charts.map((one) => one.element));
  const books = h('div', { class: 'books', id: 'books' });
  const disks = h('section', { class: 'disks' });
  replace(view,
    h('p', { class: 'crumb' }, h('a', { href: '/' }, 'Fleet'), ` / ${tenant}`),
    h('h1', {}, node), facts, findings, chartBox, noCharts, checksSection({ tenant, node }),
    h('p', { class: 'facts', id: 'to-logs' }, h('a', { href: `/tail?tenant=${encodeURIComponent(tenant)}&node=${encodeURIComponent(node)}` }, 'Log entries as they arrive')),
    h('h2', {}, 'The books'), books, disks, seriesSection(path));

  function showFacts() {
    const { agent, machine } = state;
    const parts = [
      agent.connected ? `connected for ${span(now() - agent.since_ms)}` : `last contact ${ago(now() - agent.last_contact_ms)}`,
      `pegel-agent ${agent.version}`, agent.hostname !== node && agent.hostname, machine?.kernel, machine?.architecture,
      machine?.cpus && `${machine.cpus} CPU${machine.cpus === 1 ? '' : 's'}`,
      machine?.memory_total_bytes && `${bytes(machine.memory_total_bytes)} memory`,
      machine?.boot_time_seconds && `up ${span(now() - machine.boot_time_seconds * 1000)}`,
      `${count(state.series)} series`,
      agent.live.log_entries_per_second !== undefined && `${perSecond(agent.live.log_entries_per_second)} log entries`,
    ];
    setText(facts, parts.filter(Boolean).join(' · '));
  }

  function show() {
    showFacts();
    once(findings, state.agent.findings, (list) => list.map((one) => h('li', { 'data-level': one.level },
      h('b', {}, one.what), h('p', {}, prose(one.why)), one.todo && h('p', { class: 'todo' }, prose(one.todo)))));
    chartBox.hidden = !history;
    setText(noCharts, history ? '' : 'No host metrics of this node in the last hour: its charts appear with the first.');
    for (const one of charts) one.show(history);
    once(books, state.agent.books, (list) => (list.length > 0 ? list.map(book)
      : [h('p', { class: 'quiet' }, 'No report yet. Agents report their books twice a minute.')]));
    once(disks, state.machine?.filesystems ?? [], fileSystems);
  }

  // Puts a live value where the history has it; the window moves with the aggregator's clock.
  function advance() {
    if (!history || !state.live_at_ms) return;
    const width = history.tracks[0].values.length;
    const moved = Math.floor(now() / history.step_ms) - width + 1 - Math.floor(history.from_ms / history.step_ms);
    if (moved > 0) {
      history.from_ms += moved * history.step_ms;
      for (const track of history.tracks) {
        track.values.splice(0, moved);
        while (track.values.length < width) track.values.push(null);
      }
    }
    const place = Math.floor((state.live_at_ms - history.from_ms) / history.step_ms);
    if (place < 0 || place >= width) return;
    for (const track of history.tracks) {
      if (track.name in state.agent.live) track.values[place] = state.agent.live[track.name];
    }
  }

  async function refetch() {
    try { history = (await fetchJson(path)).history; show(); } catch { /* the link's state says that it is gone */ }
  }

  show();
  listen(`?tenant=${encodeURIComponent(tenant)}&node=${encodeURIComponent(node)}`, {
    fleet() {},
    node(event) {
      state = event;
      if (!history) refetch();
      advance();
      show();
    },
  });
  setInterval(showFacts, 1000);
  setInterval(refetch, REFETCH_MS);
}

// Renders again only when what it shows has changed.
function once(element, shown, render) {
  const key = JSON.stringify(shown);
  if (element.dataset.key === key) return;
  element.dataset.key = key;
  replace(element, ...[render(shown)].flat());
}

function book(b) {
  const total = (counts) => Object.values(counts).reduce((sum, n) => sum + n, 0);
  const why = (counts) => Object.entries(counts).filter(([, n]) => n > 0).map(([reason, n]) => `${count(n)} ${reason.replaceAll('_', ' ')}`).join(', ');
  const lines = [
    ['delivered', 'delivered', b.delivered, 'accepted by the backend', true],
    ['held', 'held already', b.held_already, 'found there when sent again'],
    ['front', 'in front', b.in_front, 'in the agent\'s memory, on their way', true],
    ['spooled', 'spooled', b.spooled, 'on the node\'s disk, waiting their turn', true],
    ['dropped', 'dropped', total(b.dropped), why(b.dropped) || 'given up by the agent', true],
    ['rejected', 'refused', total(b.rejected), why(b.rejected) || 'by the backend; they went back to the agent', true],
    ['lost', 'lost in a crash', b.lost_in_crash, 'at most'],
  ].filter(([, , n, , always]) => always || n > 0);
  const behind = b.lag_ms >= 60000;
  const lag = b.parked ? `Takes nothing: ${b.parked}` : b.lag_ms < 1000 ? 'Up to date.' : `${behind ? 'Behind by' : 'Oldest on its way:'} ${span(b.lag_ms)}.`;
  const share = h('div', { class: 'share', 'aria-hidden': 'true' }, lines.filter(([, , n]) => n > 0).map(([kind, , n]) => {
    const part = h('i', { class: kind });
    part.style.flexGrow = String(n);
    return part;
  }));
  const off = b.difference !== 0;
  return h('section', { class: 'book', 'data-output': b.output, 'data-signal': b.signal },
    h('h3', {}, `${b.signal} → ${b.output || 'no output yet'}`),
    h('p', { class: 'lag', 'data-level': b.parked ? 'bad' : behind ? 'warning' : null }, lag), share,
    h('table', {}, h('tbody', {},
      h('tr', { class: 'sum' }, h('td'), h('td', {}, 'collected'), h('td', { class: 'n' }, count(b.collected))),
      lines.map(([kind, name, n, words], i) => h('tr', {}, h('td', {}, i === 0 ? '=' : '+'),
        h('td', { class: 'what' }, name, (n > 0 || kind === 'delivered') && h('span', {}, words)),
        h('td', { class: n === 0 ? 'n zero' : ['dropped', 'rejected', 'lost'].includes(kind) ? 'n loss' : 'n' }, count(n)))),
      h('tr', { class: 'end', 'data-off': off },
        h('td', {}, off ? '≠' : '✓'),
        h('td', {}, off ? 'off by' : 'The books balance.'), h('td', { class: 'n' }, off ? count(Math.abs(b.difference)) : '')))));
}

function fileSystems(list) {
  if (list.length === 0) return [];
  return [h('h2', {}, 'File systems'), h('div', { class: 'scroll' }, h('table', {},
    h('thead', {}, h('tr', {}, ['Mounted at', 'Used', 'Free', 'Size', 'Device'].map((name, i) => h('th', { scope: 'col', class: i === 2 || i === 3 ? 'n' : null }, name)))),
    h('tbody', {}, list.map((one) => {
      const used = (one.size_bytes - one.available_bytes) / one.size_bytes;
      const bar = meter();
      bar.set(used);
      return h('tr', {}, h('td', {}, h('code', {}, one.mountpoint)), h('td', {}, bar.element, percent(used)),
        h('td', { class: 'n' }, bytes(one.available_bytes)), h('td', { class: 'n' }, bytes(one.size_bytes)),
        h('td', { class: 'quiet' }, `${one.device} (${one.fstype})`));
    }))))];
}

function seriesSection(path) {
  const input = h('input', { type: 'search', name: 'match', placeholder: 'node_load1 or {job="node", mode=~"user|system"}', 'aria-label': 'Series selector', autocomplete: 'off', spellcheck: 'false' });
  const result = h('div', { class: 'series', 'aria-live': 'polite' });
  const form = h('form', { class: 'ask', submit: ask }, input, h('span', { class: 'quiet' }, 'Enter shows the last values'));

  async function ask(event) {
    event.preventDefault();
    try {
      const answer = await fetchJson(`${path}/series?match=${encodeURIComponent(input.value.trim())}`);
      const shown = answer.series.slice(0, MOST_SERIES);
      replace(result, h('p', { class: 'quiet' }, answer.matching === 0 ? 'No series matches.'
        : `${count(answer.matching)} series${answer.matching > shown.length ? `, the first ${shown.length}` : ''}`),
        shown.length > 0 && h('div', { class: 'scroll' }, h('table', {}, h('tbody', {}, shown.map((one) => h('tr', {},
          h('td', {}, h('code', {}, seriesName(one.labels))), h('td', { class: 'n' }, one.value), h('td', { class: 'n quiet' }, ago(now() - one.at_ms))))))));
    } catch (error) {
      replace(result, h('p', { role: 'alert' }, String(error.message)));
    }
  }
  return h('section', {}, h('h2', {}, 'Series'), form, result);
}

function seriesName(labels) {
  const { __name__: name = '', ...others } = labels;
  const hidden = ['tenant', 'node'];
  const pairs = Object.entries(others).filter(([label]) => !hidden.includes(label)).map(([label, value]) => `${label}=${JSON.stringify(value)}`);
  return `${name}{${pairs.join(', ')}}`;
}

export async function refusedView(view) {
  document.title = 'Refused · pegel';
  const list = h('div', { id: 'refused' });
  replace(view, h('h1', {}, 'Refused'), h('p', { class: 'facts' }, 'The latest samples and log entries that a backend refused, newest first. They went back to their agents with the reason; this is only a view.'), list);
  let before;
  async function load() {
    const { rejects } = await fetchJson('/api/v1/rejects');
    const key = JSON.stringify(rejects);
    if (key === before) return;
    before = key;
    replace(list, rejects.length === 0 ? h('div', { class: 'empty' }, h('h2', {}, 'Nothing was refused.'), h('p', { class: 'quiet' }, 'Not since this aggregator started, as far back as its list goes.'))
      : h('div', { class: 'scroll' }, h('table', {}, h('thead', {}, h('tr', {}, ['When', 'Node', 'Output', 'Records', 'Reason', 'What the backend said'].map((name, i) => h('th', { scope: 'col', class: i === 3 ? 'n' : null }, name)))),
        h('tbody', {}, rejects.map((one) => h('tr', {}, h('td', {}, instant(one.at_ms)),
          h('td', {}, h('a', { href: nodePath(one.tenant, one.node) }, one.node), ` ${one.tenant}`), h('td', {}, one.output),
          h('td', { class: 'n' }, count(one.count)), h('td', {}, one.reason.replaceAll('_', ' ')), h('td', { class: 'quiet' }, one.message)))))));
  }
  const again = () => load().catch((error) => showFailure(list, 'The list could not be read.', error));
  await again();
  setInterval(again, 5000);
  listen('', { fleet() {} });
}
