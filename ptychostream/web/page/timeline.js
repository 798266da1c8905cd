// Lanes over time: scan, model, agent.

import { prepare } from "./chart.js";
import { clock, colour } from "./format.js";
import { LANES } from "./names.js";

const SPAN = 900, LEFT = 54, TALL = 24, COLOURS = ["--s5", "--s2", "--s4", "--s3", "--s0"];

// Pieces [from, text] of a lane, the oldest first.
function pieces(name, events, reading) {
  const found = events.filter((event) => event.record === name).map((event) => [event.time_s, event.text]);
  if (reading && (!found.length || found[found.length - 1][1] !== String(reading[0]))) {
    found.push([found.length ? reading[3] : 0, String(reading[0] ?? "")]);
  }
  return found;
}

export function drawTimeline(canvas, events, records, now) {
  const lanes = LANES.filter(([name]) => records[name]);
  canvas.style.height = `${Math.max(1, lanes.length) * TALL + 22}px`;
  const [context, wide, high] = prepare(canvas);
  if (!wide) return;
  context.font = "13px system-ui, sans-serif";
  const from = now - SPAN, px = (time) => LEFT + ((Math.max(time, from) - from) / SPAN) * (wide - LEFT);
  lanes.forEach(([name, word], lane) => {
    const top = lane * TALL;
    context.fillStyle = colour("--soft");
    context.fillText(word, 0, top + 16);
    const parts = pieces(name, events, records[name]);
    parts.forEach(([begin, text], k) => {
      const end = k + 1 < parts.length ? parts[k + 1][0] : now;
      if (end < from || !text) return;
      const x = px(begin), width = Math.max(2, px(end) - x - 1);
      context.fillStyle = colour(COLOURS[lane % COLOURS.length]);
      context.globalAlpha = k % 2 ? 0.55 : 0.9;
      context.fillRect(x, top + 2, width, TALL - 4);
      context.globalAlpha = 1;
      if (width < 24) return;
      context.save();
      context.beginPath();
      context.rect(x, top, width - 2, TALL);
      context.clip();
      context.fillStyle = "#06141f";
      context.fillText(text, x + 5, top + 16.5);
      context.restore();
    });
  });
  context.fillStyle = colour("--soft");
  context.fillText(clock(from), LEFT, high - 4);
  context.textAlign = "right";
  context.fillText(clock(now), wide, high - 4);
  context.textAlign = "left";
}
