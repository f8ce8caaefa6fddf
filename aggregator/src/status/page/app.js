// Which view, the link to the aggregator, and the aggregator's clock.

import { replace, h, setAttribute, setText } from './dom.js';
import { checksView } from './checks.js';
import { fleetView } from './fleet.js';
import { nodeView, refusedView } from './node.js';
import { tailView } from './tail.js';

const view = document.getElementById('view');
const link = document.getElementById('link');

// The aggregator's clock, so that "3 s ago" is right on a machine whose own clock is not.
let ahead = 0;
export const now = () => Date.now() + ahead;

export function showLink(state, words) {
  setAttribute(link, 'data-state', state);
  setText(link, words);
}

// Server-sent events; the browser reconnects by itself, and each connection begins with the whole state.
export function listen(query, handlers) {
  const source = new EventSource(`/api/v1/events${query}`);
  source.addEventListener('open', () => showLink('live', 'live'));
  source.addEventListener('error', () => {
    showLink('lost', 'aggregator not reachable');
    // After an answer other than 200 browsers give up; after a restart the aggregator is back soon.
    if (source.readyState === EventSource.CLOSED) setTimeout(() => listen(query, handlers), 5000);
  });
  for (const [name, handler] of Object.entries(handlers)) {
    source.addEventListener(name, (event) => {
      const body = JSON.parse(event.data);
      ahead = body.now_ms - Date.now();
      if (name === 'fleet') {
        setText(document.getElementById('about'), `pegel ${body.version}, aggregator ${body.aggregator || 'unnamed'}`);
      }
      handler(body);
    });
  }
}

export async function fetchJson(path) {
  const response = await fetch(path);
  const body = await response.json().catch(() => ({ error: `the aggregator answered ${response.status}` }));
  if (!response.ok) throw new Error(body.error ?? `the aggregator answered ${response.status}`);
  return body;
}

export function showFailure(element, doing, error) {
  replace(element, h('div', { class: 'empty', role: 'alert' }, h('h2', {}, doing), h('p', { class: 'quiet' }, String(error.message ?? error))));
}

function start() {
  const path = location.pathname;
  for (const anchor of document.querySelectorAll('nav a')) {
    setAttribute(anchor, 'aria-current', anchor.getAttribute('href') === path ? 'page' : null);
  }
  const node = path.match(/^\/nodes\/([^/]+)\/([^/]+)$/);
  if (node) nodeView(view, decodeURIComponent(node[1]), decodeURIComponent(node[2]));
  else if (path === '/refused') refusedView(view);
  else if (path === '/checks') checksView(view);
  else if (path === '/tail') tailView(view);
  else fleetView(view);
}

start();
