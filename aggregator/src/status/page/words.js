// Numbers as people read them; the same forms as `pegel status` (status/words.rs).

export const count = (n) => Math.round(n).toLocaleString('en-US');

export function bytes(n) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let unit = 0;
  while (Math.abs(n) >= 1000 && unit < units.length - 1) { n /= 1024; unit += 1; }
  const size = Math.abs(n);
  const places = unit === 0 || size >= 100 ? 0 : size >= 10 ? 1 : 2;
  return `${n.toFixed(places)} ${units[unit]}`;
}

export const byteRate = (n) => `${bytes(n)}/s`;
export const perSecond = (n) => `${n < 10 ? n.toFixed(n > 0 && n < 1 ? 1 : 0) : count(n)}/s`;
export const percent = (ratio) => `${(ratio * 100).toFixed(ratio > 0 && ratio < 0.0995 ? 1 : 0)} %`;
export const load = (n) => n.toFixed(2);

export function span(ms) {
  const seconds = Math.floor(Math.max(0, ms) / 1000);
  const two = (n, unit, rest, small) => (rest === 0 ? `${n} ${unit}` : `${n} ${unit} ${rest} ${small}`);
  if (seconds === 0) return `${Math.max(0, Math.round(ms))} ms`;
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return two(Math.floor(seconds / 60), 'min', seconds % 60, 's');
  if (seconds < 86400) return two(Math.floor(seconds / 3600), 'h', Math.floor((seconds % 3600) / 60), 'min');
  return two(Math.floor(seconds / 86400), 'd', Math.floor((seconds % 86400) / 3600), 'h');
}

// "now" where milliseconds would only flicker; one unit is enough in a table.
export function ago(ms) {
  if (ms < 2000) return 'now';
  return `${span(ms).split(' ').slice(0, 2).join(' ')} ago`;
}

export const clock = (ms) => new Date(ms).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
export const instant = (ms) => new Date(ms).toLocaleString([], { dateStyle: 'short', timeStyle: 'medium' });
