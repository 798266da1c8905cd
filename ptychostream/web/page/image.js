// Images out of binary messages: see ptychostream/web/images/messages.py.

export const NOTHING = 65535; // the code of a pixel without a value

async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

export function readHeader(buffer) {
  const size = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, size)));
  return [header, new Uint8Array(buffer, 4 + size)];
}

let images = 0;

export class LiveImage {
  constructor() {
    this.id = ++images;
    this.header = null;
    this.codes = new Uint16Array(0);
    this.busy = Promise.resolve();
  }

  // Apply a message after all earlier ones. Resolves to the tiles that changed (null: all), or to false if the message
  // does not fit what is here.
  apply(header, packed) {
    const done = this.busy.then(() => this.#apply(header, packed));
    this.busy = done.catch(() => undefined);
    return done;
  }

  async #apply(header, packed) {
    const whole = header.tiles === null;
    const fits = this.header && this.header.version === header.base &&
      this.header.width === header.width && this.header.height === header.height;
    if (!whole && !fits) return false;
    const split = packed.length ? await inflate(packed) : new Uint8Array(0);
    const codes = fits ? this.codes : new Uint16Array(header.width * header.height);
    this.#unfold(split, codes, header);
    this.codes = codes;
    this.header = header;
    return header.tiles;
  }

  #unfold(split, codes, { width, height, tile, tiles }) {
    const count = split.length / 2, across = Math.ceil(width / tile), down = Math.ceil(height / tile);
    let at = 0, code = 0;
    const many = tiles === null ? across * down : tiles.length;
    for (let k = 0; k < many; k++) {
      const index = tiles === null ? k : tiles[k];
      const top = Math.floor(index / across) * tile, left = (index % across) * tile;
      const bottom = Math.min(top + tile, height), right = Math.min(left + tile, width);
      for (let row = top; row < bottom; row++) {
        for (let column = left, place = row * width + left; column < right; column++, place++, at++) {
          const folded = (split[at] << 8) | split[count + at];
          code = (code + ((folded >>> 1) ^ -(folded & 1))) & 0xffff;
          codes[place] = code;
        }
      }
    }
    if (at !== count) throw new Error(`${count} pixels, where the tiles have ${at}`);
  }

  // The image as it is now, which later messages do not change.
  copy() {
    return Object.assign(new LiveImage(), { id: this.id, header: this.header, codes: this.codes.slice() });
  }

  value(column, row) {
    const { width, height, offset, step } = this.header;
    if (column < 0 || row < 0 || column >= width || row >= height) return null;
    const code = this.codes[row * width + column];
    return code === NOTHING ? null : offset + step * code;
  }

  get attributes() { return this.header.attributes; }

  // Metres for one pixel, or 0 if it is not told.
  get pixel() {
    const size = this.attributes.PixelSize;
    return typeof size === "number" && size > 0 ? size * this.header.reduced : 0;
  }

  // (x, y) of the first pixel in metres, or null.
  get origin() {
    const { OriginX: x, OriginY: y } = this.attributes;
    return this.pixel && typeof x === "number" && typeof y === "number" ? [x, y] : null;
  }
}
