// A chart of one hour: lines in SVG, a crosshair for pointer and keyboard, words for those who do not see it.

import { h, setAttribute, setText, svg } from './dom.js';
import { clock } from './words.js';

const WIDTH = 600;
const HEIGHT = 100;
// Values are joined over a gap as long as the longest usual interval of a minute and a bit; longer ones show.
const JOIN_MS = 75000;

// lines: [{ name, label, format }]; top: the scale's least upper end, or a function of the greatest value.
export function chart(title, lines, top) {
  const shown = lines.map((line, i) => {
    const value = document.createTextNode('–');
    const small = h('small', {}, line.label);
    return { ...line, value, now: h('span', { class: i > 0 ? 'now second' : 'now' }, lines.length > 1 ? small : null, value) };
  });
  const grid = [0, 0.5, 1].map((y) => svg('line', { class: 'grid', x1: 0, x2: WIDTH, y1: y * HEIGHT, y2: y * HEIGHT }));
  const area = svg('path', { class: 'area' });
  const paths = shown.map((_, i) => svg('path', { class: i > 0 ? 'line second' : 'line' }));
  const cross = svg('line', { class: 'cross', y1: 0, y2: HEIGHT });
  const picture = svg('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'img', tabindex: '0' },
    grid, shown.length === 1 ? area : null, [...paths].reverse(), cross);
  const [from, at, to] = [h('span'), h('span'), h('span')];
  const figure = h('figure', { class: 'chart' },
    h('figcaption', {}, h('span', { class: 'name' }, title), h('span', { class: 'values' }, shown.map((line) => line.now))),
    picture, h('div', { class: 'axis' }, from, at, to));

  let history = null;
  let chosen = null;
  picture.addEventListener('pointermove', (event) => {
    const box = picture.getBoundingClientRect();
    choose(Math.floor(((event.clientX - box.left) / box.width) * steps()));
  });
  for (const leave of ['pointerleave', 'blur']) picture.addEventListener(leave, () => choose(null));
  picture.addEventListener('keydown', (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20 }[event.key];
    if (event.key === 'Escape') choose(null);
    else if (by !== undefined) {
      event.preventDefault();
      choose(Math.min(steps() - 1, Math.max(0, (chosen ?? steps() - 1) + by)));
    }
  });

  const steps = () => history?.tracks[0]?.values.length ?? 0;
  const track = (name) => history?.tracks.find((one) => one.name === name)?.values ?? [];

  function choose(step) {
    chosen = step === null || step < 0 || step >= steps() ? null : step;
    if (chosen !== null) {
      const x = ((chosen + 0.5) / steps()) * WIDTH;
      setAttribute(cross, 'x1', x);
      setAttribute(cross, 'x2', x);
    }
    cross.style.visibility = chosen === null ? 'hidden' : 'visible';
    label();
  }

  // The values at the crosshair, or else of now.
  function label() {
    const words = shown.map((line) => {
      const values = track(line.name);
      const value = nearest(values, chosen ?? steps() - 1);
      const text = value === null ? '–' : line.format(value);
      if (line.value.data !== text) line.value.data = text;
      return `${line.label ?? title} ${text}`;
    });
    const when = chosen === null ? '' : clock(history.from_ms + chosen * history.step_ms);
    setText(at, when);
    setAttribute(picture, 'aria-label', `${title}, the last hour. ${when ? `At ${when}` : 'Now'}: ${words.join(', ')}`);
  }

  function draw() {
    if (!history) return;
    const greatest = Math.max(0, ...shown.flatMap((line) => track(line.name).filter((v) => v !== null)));
    const scale = top(greatest);
    shown.forEach((line, i) => {
      const runs = joined(track(line.name), Math.ceil(JOIN_MS / history.step_ms));
      const point = ([step, value]) => `${(((step + 0.5) / steps()) * WIDTH).toFixed(1)} ${(HEIGHT - (value / scale) * HEIGHT).toFixed(1)}`;
      // A value that stands alone would be a line of no length: a short dash instead.
      const dash = (run) => (run.length === 1 ? [run[0], [run[0][0] + 0.6, run[0][1]]] : run);
      setAttribute(paths[i], 'd', runs.map((run) => `M${dash(run).map(point).join('L')}`).join(''));
      if (i === 0) {
        const x = (step) => (((step + 0.5) / steps()) * WIDTH).toFixed(1);
        setAttribute(area, 'd', runs.map((run) => `M${x(run[0][0])} ${HEIGHT}L${run.map(point).join('L')}L${x(run.at(-1)[0])} ${HEIGHT}Z`).join(''));
      }
    });
    setText(from, clock(history.from_ms));
    setText(to, `top ${shown[0].format(scale)}`);
    label();
  }

  return { element: figure, show(next) { history = next; draw(); } };
}

// Runs of known values, each a list of [step, value], broken where nothing was known for longer than `most` steps.
function joined(values, most) {
  const runs = [];
  let before = null;
  values.forEach((value, step) => {
    if (value === null) return;
    if (before === null || step - before > most) runs.push([]);
    runs.at(-1).push([step, value]);
    before = step;
  });
  return runs;
}

// With an interval longer than a step most steps are empty: the value before, up to two minutes back, still holds.
function nearest(values, place) {
  for (let i = place; i >= Math.max(0, place - 8); i -= 1) if (values[i] !== null && values[i] !== undefined) return values[i];
  return null;
}

// The next "round" number of bytes above the greatest value.
export function byteScale(greatest) {
  let scale = 1024;
  while (scale < greatest) scale *= 2;
  return scale;
}

export function loadScale(cpus) {
  return (greatest) => Math.max(1, cpus() ?? 1, Math.ceil(greatest));
}
