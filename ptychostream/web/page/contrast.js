// From codes to colours: colour maps, percentiles, look-up tables.

import { NOTHING } from "./image.js";

export async function loadColours() {
  const maps = await (await fetch("page/colours.json")).json();
  return Object.fromEntries(Object.entries(maps).map(([name, text]) => {
    const table = new Uint32Array(256);
    for (let k = 0; k < 256; k++) {
      const [r, g, b] = [0, 2, 4].map((at) => parseInt(text.substr(6 * k + at, 2), 16));
      table[k] = (255 << 24) | (b << 16) | (g << 8) | r; // little-endian RGBA
    }
    return [name, table];
  }));
}

// Values below which `low` and `high` percent of the pixels are.
export function percentiles(image, low, high) {
  const counts = new Uint32Array(65536);
  for (const code of image.codes) counts[code]++;
  const held = image.codes.length - counts[NOTHING];
  const { offset, step } = image.header;
  const at = (percent) => {
    const wanted = Math.max(1, Math.round(held * percent / 100));
    for (let code = 0, seen = 0; code < NOTHING; code++) if ((seen += counts[code]) >= wanted) return offset + step * code;
    return offset;
  };
  return held ? [at(low), at(high)] : [0, 1];
}

// The colour of every code, RGBA as Uint32; a pixel without a value is transparent.
export function lookUp(header, colours, [low, high]) {
  const table = new Uint32Array(65536), scale = 255 / Math.max(high - low, 1e-30);
  for (let code = 0; code < NOTHING; code++) {
    const place = (header.offset + header.step * code - low) * scale;
    table[code] = colours[place <= 0 ? 0 : place >= 255 ? 255 : place | 0];
  }
  table[NOTHING] = 0;
  return table;
}

// Paint an image, or some of its tiles, to a canvas of its size.
export function paint(canvas, image, table, tiles) {
  const { width, height, tile } = image.header, fresh = canvas.width !== width || canvas.height !== height;
  if (fresh) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  const across = Math.ceil(width / tile);
  const boxes = tiles === null || fresh
    ? [[0, 0, width, height]]
    : tiles.map((index) => [(index % across) * tile, Math.floor(index / across) * tile, tile, tile]);
  for (const [left, top, w, h] of boxes) {
    const wide = Math.min(w, width - left), high = Math.min(h, height - top);
    const data = new ImageData(wide, high), pixels = new Uint32Array(data.data.buffer);
    for (let row = 0, at = 0; row < high; row++) {
      for (let column = 0, place = (top + row) * width + left; column < wide; column++) {
        pixels[at++] = table[image.codes[place++]];
      }
    }
    context.putImageData(data, left, top);
  }
}
