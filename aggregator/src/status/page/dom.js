// Elements without markup: everything that comes from a peer becomes a text node or an attribute's value, never HTML.

const SVG = 'http://www.w3.org/2000/svg';

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === 'function') element.addEventListener(name, value);
    else element.setAttribute(name, value === true ? '' : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
export const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

// Writes only what changed, so that a selection or a screen reader is not disturbed every second.
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function setAttribute(element, name, value) {
  if (value === null || value === undefined || value === false) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, String(value));
}

export function replace(element, ...children) {
  element.replaceChildren(...children.flat().filter(Boolean));
}

export function meter() {
  const bar = h('i');
  const whole = h('span', { class: 'meter', 'aria-hidden': 'true' }, bar);
  return { element: whole, set: (value) => setMeter(whole, bar, value) };
  function setMeter(element, inner, value) {
    inner.style.width = `${Math.round(Math.min(1, Math.max(0, value ?? 0)) * 100)}%`;
    setAttribute(element, 'data-high', value >= 0.9 ? '' : null);
    element.hidden = value === undefined || value === null;
  }
}

// Words in which `commands` stand between backquotes.
export const prose = (text) => text.split('`').map((part, i) => (i % 2 === 1 ? h('code', {}, part) : part));

export const nodePath = (tenant, node) => `/nodes/${encodeURIComponent(tenant)}/${encodeURIComponent(node)}`;
