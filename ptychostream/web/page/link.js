// The WebSocket: opened again when it is lost, with growing pauses.

const FIRST_PAUSE = 500, LONGEST_PAUSE = 8000;

export class Link {
  // `onText` gets objects, `onImage` gets buffers, `onState` gets a text: empty when connected.
  constructor(onText, onImage, onState) {
    Object.assign(this, { onText, onImage, onState, pause: FIRST_PAUSE, socket: null });
    this.open();
  }

  open() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/socket`);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => { this.pause = FIRST_PAUSE; this.onState(""); };
    socket.onmessage = ({ data }) => (typeof data === "string" ? this.onText(JSON.parse(data)) : this.onImage(data));
    socket.onclose = ({ reason, code }) => {
      const why = reason || (code === 1006 ? "no connection to ptychostream web" : `closed (${code})`);
      this.onState(`${why}; trying again`);
      setTimeout(() => this.open(), this.pause);
      this.pause = Math.min(2 * this.pause, LONGEST_PAUSE);
    };
    this.socket = socket;
  }

  send(request) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(request));
  }
}
