// The values along a line.

import { drawChart } from "./chart.js";
import { length } from "./format.js";

// Values at equal steps from one point to another, interpolated; null where a pixel has no value.
export function sample(image, [[x0, y0], [x1, y1]]) {
  const across = Math.hypot(x1 - x0, y1 - y0), count = Math.max(2, Math.min(2000, Math.ceil(across) + 1));
  const x = [], y = [];
  for (let k = 0; k < count; k++) {
    const part = k / (count - 1), column = x0 + part * (x1 - x0) - 0.5, row = y0 + part * (y1 - y0) - 0.5;
    const left = Math.floor(column), top = Math.floor(row), right = column - left, down = row - top;
    const near = [[0, 0], [1, 0], [0, 1], [1, 1]].map(([i, j]) => image.value(left + i, top + j));
    const weights = [(1 - right) * (1 - down), right * (1 - down), (1 - right) * down, right * down];
    x.push(part * across);
    const known = weights.every((weight, i) => weight < 1e-9 || near[i] !== null);
    y.push(known ? weights.reduce((sum, weight, i) => sum + weight * (near[i] ?? 0), 0) : null);
  }
  return { x, y };
}

export function drawProfile(canvas, view) {
  const { image, line } = view;
  canvas.hidden = !(line && image?.header);
  if (canvas.hidden) return;
  const { x, y } = sample(image, line), pixel = image.pixel;
  drawChart(canvas, {
    title: "Along the line", unit: image.header.units, series: [{ name: "", x, y, colour: "--s0" }],
    range: [0, x[x.length - 1]], xText: (at) => (pixel ? length(at * pixel) : `${at.toFixed(0)} px`),
  });
}
