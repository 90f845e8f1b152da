// The graph on a canvas: drawn only when something has changed, at most once a frame.

import { Layout } from "./layout.js";

const RADIUS = 7;
// Milliseconds from one frame of a drag to the next beyond which it moves the last drawing's picture instead.
const SLOW = 25;
const DASHES = { waypoint: [14, 4], tls: [], hbone: [], direct: [], plaintext: [7, 5] };
const short = (milliseconds) => (milliseconds < 10 ? milliseconds.toFixed(1) : milliseconds.toFixed(0));
const durations = (requests) => `p50 ${short(requests.p50)} · p99 ${short(requests.p99)} ms`;

export class Graph {
  #layout = new Layout();
  #view = { x: 0, y: 0, zoom: 1 };
  #fitted = true;
  #asked = false;
  #frame = 0;
  #picture = null;
  #drag = null;
  #pointers = new Map();

  constructor(canvas, onSelect) {
    this.canvas = canvas;
    this.pen = canvas.getContext("2d");
    this.onSelect = onSelect;
    this.data = { nodes: [], edges: [] };
    this.selected = null;
    this.ejected = new Set();
    new ResizeObserver(() => this.#resize()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.redraw());
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => this.#up(event));
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    canvas.addEventListener("keydown", (event) => this.#key(event));
  }

  show(data, selected, ejected) {
    this.data = data;
    this.selected = selected;
    this.ejected = new Set(ejected);
    this.#layout.update(data.nodes, data.edges);
    this.#picture = null;
    this.redraw();
  }

  redraw() {
    if (this.#asked) return;
    this.#asked = true;
    requestAnimationFrame((at) => {
      this.#asked = false;
      if (this.#drag?.moved && at - this.#frame > SLOW) this.#drag.slow = true;
      this.#frame = at;
      if (this.#drag?.slow && !this.#drag.place) return this.#pan();
      const moving = this.#layout.step();
      if (this.#fitted) this.#fit();
      this.#draw();
      if (moving) this.redraw();
    });
  }

  // Moves the last drawing's picture; draws anew once a quarter of the screen lacks.
  #pan() {
    const { canvas, pen } = this;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    const [dx, dy] = [this.#view.x - this.#picture?.x, this.#view.y - this.#picture?.y];
    if (this.#picture && Math.abs(dx) < width / 4 && Math.abs(dy) < height / 4) {
      pen.clearRect(0, 0, width, height);
      pen.drawImage(this.#picture.canvas, dx, dy, width, height);
      return;
    }
    this.#draw();
    const copy = Object.assign(document.createElement("canvas"), { width: canvas.width, height: canvas.height });
    copy.getContext("2d").drawImage(canvas, 0, 0);
    this.#picture = { canvas: copy, x: this.#view.x, y: this.#view.y };
  }

  // Where an edge's middle is, in the page's coordinates.
  middleOf(from, to) {
    const [a, b] = [this.#layout.places.get(from), this.#layout.places.get(to)];
    const box = this.canvas.getBoundingClientRect();
    const middle = this.#bend(this.#onScreen(a), this.#onScreen(b)).middle;
    return { x: box.left + middle.x, y: box.top + middle.y };
  }

  #resize() {
    const ratio = devicePixelRatio || 1;
    this.canvas.width = this.canvas.clientWidth * ratio;
    this.canvas.height = this.canvas.clientHeight * ratio;
    this.pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.redraw();
  }

  #fit() {
    const { left, right, top, bottom } = this.#layout.bounds();
    const [width, height] = [this.canvas.clientWidth, this.canvas.clientHeight];
    const zoom = Math.min(width / (right - left + 160), height / (bottom - top + 110), 1.6);
    this.#view = { zoom, x: width / 2 - ((left + right) / 2) * zoom, y: height / 2 - ((top + bottom) / 2) * zoom };
  }

  #onScreen(place) {
    return { x: place.x * this.#view.zoom + this.#view.x, y: place.y * this.#view.zoom + this.#view.y };
  }

  // Edges of the two directions lie apart.
  #bend(a, b) {
    const [x, y] = [b.x - a.x, b.y - a.y];
    const control = { x: (a.x + b.x) / 2 - y * 0.12, y: (a.y + b.y) / 2 + x * 0.12 };
    const middle = { x: (a.x + 2 * control.x + b.x) / 4, y: (a.y + 2 * control.y + b.y) / 4 };
    return { control, middle };
  }

  #draw() {
    const { pen, canvas } = this;
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(`--${name}`);
    const colours = { waypoint: colour("good"), tls: colour("good"), hbone: colour("good"), direct: colour("direct"), plaintext: colour("plain"), denied: colour("bad") };
    pen.clearRect(0, 0, canvas.clientWidth, canvas.clientHeight);
    const text = this.#view.zoom > 0.45;
    pen.font = "12px system-ui, 'DejaVu Sans', sans-serif";
    for (const edge of this.data.edges) this.#drawEdge(edge, colours, text, colour("ground"));
    pen.setLineDash([]);
    for (const node of this.data.nodes) this.#drawNode(node, text, colour);
  }

  #drawEdge(edge, colours, text, ground) {
    const [from, to] = [this.#layout.places.get(edge.from), this.#layout.places.get(edge.to)];
    if (!from || !to || from === to) return;
    const { pen } = this;
    const [a, b] = [this.#onScreen(from), this.#onScreen(to)];
    const { control, middle } = this.#bend(a, b);
    const denied = edge.denied > 0;
    const chosen = this.selected === edge.key;
    const line = (width, stroke, dash) => {
      pen.lineWidth = width; pen.strokeStyle = stroke; pen.setLineDash(dash);
      pen.beginPath(); pen.moveTo(a.x, a.y); pen.quadraticCurveTo(control.x, control.y, b.x, b.y); pen.stroke();
    };
    const stroke = denied ? colours.denied : colours[edge.way];
    const rate = edge.requests?.rate ?? edge.rate;
    const width = Math.min(1.2 + Math.log10(1 + rate) * 1.6, 6) + (chosen ? 2.5 : 0);
    pen.globalAlpha = rate > 0 || edge.open > 0 || denied ? 1 : 0.35;
    line(edge.way === "direct" && !denied ? width + 2.5 : width, stroke, denied ? [2, 3] : DASHES[edge.way]);
    if (edge.way === "direct" && !denied) line(Math.max(width - 0.4, 1), ground, []);
    this.#arrow(control, b, stroke);
    if (text) this.#mark(edge, middle, denied, stroke, colours.denied);
    pen.globalAlpha = 1;
  }

  #arrow(control, b, fill) {
    const { pen } = this;
    const angle = Math.atan2(b.y - control.y, b.x - control.x);
    const tip = { x: b.x - Math.cos(angle) * (RADIUS + 2), y: b.y - Math.sin(angle) * (RADIUS + 2) };
    pen.fillStyle = fill;
    pen.beginPath(); pen.moveTo(tip.x, tip.y);
    for (const side of [0.45, -0.45]) pen.lineTo(tip.x - Math.cos(angle + side) * 9, tip.y - Math.sin(angle + side) * 9);
    pen.fill();
  }

  #mark(edge, middle, denied, fill, bad) {
    const { pen } = this;
    const { requests } = edge;
    const rate = requests?.rate ?? edge.rate;
    const failed = Math.max(edge.errors, requests?.failed ?? 0);
    const words = `${denied ? "✕ " : ""}${rate > 0 ? `${rate.toFixed(1)}/s` : ""}${failed > 0 ? ` ${(100 * failed).toFixed(0)}% failed` : ""}`;
    pen.fillStyle = fill; pen.textAlign = "center";
    pen.fillText(words, middle.x, middle.y - 3);
    if (requests) pen.fillText(durations(requests), middle.x, middle.y + 10);
    if (edge.circuit) { pen.fillStyle = bad; pen.fillText(edge.circuit, middle.x, middle.y + 23); pen.fillStyle = fill; }
    if (denied || !["hbone", "waypoint", "tls"].includes(edge.way)) return;
    // A lock: fonts may have none.
    const left = middle.x - pen.measureText(words).width / 2 - 12;
    pen.fillRect(left, middle.y - 9, 8, 6);
    pen.setLineDash([]); pen.lineWidth = 1.4; pen.strokeStyle = fill;
    pen.beginPath(); pen.arc(left + 4, middle.y - 9, 2.6, Math.PI, 0); pen.stroke();
  }

  #drawNode(node, text, colour) {
    const { pen } = this;
    const { x, y } = this.#onScreen(this.#layout.places.get(node.id));
    pen.beginPath(); pen.arc(x, y, RADIUS, 0, 2 * Math.PI);
    pen.fillStyle = node.namespace ? colour("text") : colour("plain"); pen.fill();
    pen.lineWidth = 2; pen.strokeStyle = colour("ground"); pen.stroke();
    if (this.ejected.has(node.id)) {
      pen.beginPath(); pen.arc(x, y, RADIUS + 4, 0, 2 * Math.PI);
      pen.lineWidth = 2.5; pen.strokeStyle = colour("bad"); pen.stroke();
    }
    if (!text) return;
    pen.textAlign = "center"; pen.fillStyle = colour("text"); pen.fillText(node.name, x, y + 21);
    pen.fillStyle = colour("soft");
    if (node.namespace) pen.fillText(node.namespace, x, y + 34);
    if (node.requests) pen.fillText(durations(node.requests), x, y + (node.namespace ? 47 : 34));
  }

  #at(event) {
    const box = this.canvas.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  }

  #down(event) {
    this.canvas.setPointerCapture(event.pointerId);
    const at = this.#at(event);
    this.#pointers.set(event.pointerId, at);
    const node = this.data.nodes.find(({ id }) => {
      const place = this.#onScreen(this.#layout.places.get(id));
      return Math.hypot(place.x - at.x, place.y - at.y) < 16;
    });
    const place = node && this.#layout.places.get(node.id);
    if (place) place.held = true;
    this.#drag = { at, place, moved: false, slow: false };
  }

  #move(event) {
    if (!this.#drag || !this.#pointers.has(event.pointerId)) return;
    const at = this.#at(event);
    const before = this.#pointers.get(event.pointerId);
    if (Math.hypot(at.x - this.#drag.at.x, at.y - this.#drag.at.y) > 4) this.#drag.moved = true;
    const others = [...this.#pointers].filter(([id]) => id !== event.pointerId).map(([, other]) => other);
    this.#pointers.set(event.pointerId, at);
    if (others.length > 0) {
      const spread = (one) => Math.hypot(one.x - others[0].x, one.y - others[0].y) || 1;
      return this.#zoom(others[0], spread(at) / spread(before));
    }
    const [dx, dy] = [at.x - before.x, at.y - before.y];
    if (this.#drag.place) {
      this.#drag.place.x += dx / this.#view.zoom; this.#drag.place.y += dy / this.#view.zoom;
    } else {
      this.#view.x += dx; this.#view.y += dy;
    }
    this.#fitted = false;
    this.redraw();
  }

  #up(event) {
    this.#pointers.delete(event.pointerId);
    if (!this.#drag || this.#pointers.size > 0) return;
    if (this.#drag.place) this.#drag.place.held = false;
    if (!this.#drag.moved) this.#select(this.#at(event));
    this.#drag = null;
    this.#picture = null;
    this.redraw();
  }

  #select(at) {
    let best = { distance: 14, edge: null };
    for (const edge of this.data.edges) {
      const [from, to] = [this.#layout.places.get(edge.from), this.#layout.places.get(edge.to)];
      if (!from || !to) continue;
      const [a, b] = [this.#onScreen(from), this.#onScreen(to)];
      const { control } = this.#bend(a, b);
      for (let part = 0.1; part < 0.95; part += 0.05) {
        const rest = 1 - part;
        const x = rest * rest * a.x + 2 * rest * part * control.x + part * part * b.x;
        const y = rest * rest * a.y + 2 * rest * part * control.y + part * part * b.y;
        const distance = Math.hypot(x - at.x, y - at.y);
        if (distance < best.distance) best = { distance, edge };
      }
    }
    this.onSelect(best.edge?.key ?? null);
  }

  #zoom(at, factor) {
    const zoom = Math.min(Math.max(this.#view.zoom * factor, 0.05), 4);
    const part = zoom / this.#view.zoom;
    this.#view = { zoom, x: at.x - (at.x - this.#view.x) * part, y: at.y - (at.y - this.#view.y) * part };
    this.#fitted = false;
    this.redraw();
  }

  #wheel(event) {
    event.preventDefault();
    this.#zoom(this.#at(event), Math.exp(-event.deltaY * 0.0015));
  }

  #key(event) {
    const middle = { x: this.canvas.clientWidth / 2, y: this.canvas.clientHeight / 2 };
    const steps = { ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40] };
    if (steps[event.key]) {
      this.#view.x += steps[event.key][0]; this.#view.y += steps[event.key][1];
      this.#fitted = false;
    } else if (event.key === "+" || event.key === "=") this.#zoom(middle, 1.25);
    else if (event.key === "-") this.#zoom(middle, 0.8);
    else if (event.key === "0") this.#fitted = true;
    else return;
    event.preventDefault();
    this.redraw();
  }
}
