// Line charts on a canvas.

import { colour, number } from "./format.js";

export function prepare(canvas) {
  const ratio = window.devicePixelRatio || 1, { clientWidth: wide, clientHeight: high } = canvas;
  const width = Math.round(wide * ratio), height = Math.round(high * ratio);
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, wide, high);
  return [context, wide, high];
}

const PAD = { left: 54, right: 8, top: 20, bottom: 20 };

function ticks(low, high) {
  const rough = (high - low) / 3, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((k) => k * power >= rough) * power, found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high * (1 + 1e-12) + 1e-12; k++) found.push(k * step || 0);
  return [found, Math.max(0, -Math.floor(Math.log10(step) + 1e-9))];
}

// series: [{name, x[], y[] with null for a gap, colour}]; range: [from, to] of x; xText gives a text for an x.
export function drawChart(canvas, { title, unit, series, range, xText, zero = false }) {
  const [context, wide, high] = prepare(canvas);
  if (!wide) return;
  const held = series.flatMap(({ y }) => y.filter((v) => v !== null));
  let low = Infinity, top = -Infinity;
  for (const v of held) { if (v < low) low = v; if (v > top) top = v; }
  context.font = "13px system-ui, sans-serif";
  context.fillStyle = colour("--ink");
  let at = 2;
  const heading = unit ? `${title}, ${unit}` : title;
  context.fillText(heading, at, 13);
  at += context.measureText(heading).width + 14;
  for (const one of series.filter(({ name }) => name)) {
    const last = one.y.findLast?.((v) => v !== null) ?? null;
    const text = `${one.name} ${last === null ? "" : number(last)}`;
    context.fillStyle = colour(one.colour);
    context.fillRect(at, 8, 10, 3);
    context.fillText(text, at + 14, 13);
    at += context.measureText(text).width + 30;
  }
  const box = [PAD.left, PAD.top, wide - PAD.left - PAD.right, high - PAD.top - PAD.bottom];
  context.strokeStyle = colour("--line");
  context.lineWidth = 1;
  context.strokeRect(box[0] + 0.5, box[1] + 0.5, box[2], box[3]);
  context.fillStyle = colour("--soft");
  if (!held.length) {
    context.fillText("no value yet", box[0] + 8, box[1] + box[3] / 2 + 4);
    return;
  }
  if (zero) low = Math.min(0, low);
  const room = (top - low) * 0.06 || Math.abs(top) * 0.1 || 1;
  if (!(zero && low === 0)) low -= room;
  top += room;
  const [from, to] = range;
  const px = (x) => box[0] + ((x - from) / (to - from || 1)) * box[2];
  const py = (y) => box[1] + box[3] - ((y - low) / (top - low)) * box[3];
  const [marks, digits] = ticks(low, top);
  context.textAlign = "right";
  for (const mark of marks) {
    context.fillText(number(mark + 0, digits), box[0] - 5, py(mark) + 4);
    context.beginPath();
    context.moveTo(box[0], py(mark));
    context.lineTo(box[0] + box[2], py(mark));
    context.stroke();
  }
  for (const [part, align] of [[0, "left"], [0.5, "center"], [1, "right"]]) {
    context.textAlign = align;
    context.fillText(xText(from + part * (to - from)), box[0] + part * box[2], high - 4);
  }
  context.textAlign = "left";
  for (const one of series) {
    context.strokeStyle = colour(one.colour);
    context.lineWidth = 1.8;
    context.beginPath();
    let down = false;
    one.x.forEach((x, k) => {
      const y = one.y[k];
      if (y === null || x < from) { down = false; return; }
      if (down) context.lineTo(px(x), py(y)); else context.moveTo(px(x), py(y));
      down = true;
    });
    context.stroke();
  }
}
