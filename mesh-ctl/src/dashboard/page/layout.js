// Where nodes are: springs along edges, repulsion by a grid so that the cost grows with the number of nodes, gravity by
// namespace. It settles and then stands still; a node that is new starts beside one that it talks to.

const REACH = 160;
const LENGTH = 130;

export class Layout {
  places = new Map();
  heat = 0;

  update(nodes, edges) {
    const ids = new Set(nodes.map((node) => node.id));
    let changed = false;
    for (const id of this.places.keys()) if (!ids.has(id)) changed = this.places.delete(id);
    for (const [index, node] of nodes.entries()) {
      if (this.places.has(node.id)) continue;
      const near = edges.find((edge) => edge.to === node.id && this.places.has(edge.from));
      const beside = near ? this.places.get(near.from) : { x: 0, y: 0 };
      // The golden angle spreads them without chance, so that a page is the same when it is opened again.
      const angle = index * 2.399963;
      const away = near ? LENGTH : 40 * Math.sqrt(index + 1);
      this.places.set(node.id, { x: beside.x + away * Math.cos(angle), y: beside.y + away * Math.sin(angle), dx: 0, dy: 0 });
      changed = true;
    }
    this.nodes = nodes;
    this.edges = edges.filter((edge) => edge.from !== edge.to);
    if (changed) this.heat = 1;
  }

  // One step; whether anything still moves.
  step() {
    if (this.heat < 0.02) return false;
    const places = [...this.places.values()];
    this.#repel(places);
    for (const edge of this.edges) {
      const [from, to] = [this.places.get(edge.from), this.places.get(edge.to)];
      if (!from || !to) continue;
      const [x, y] = [to.x - from.x, to.y - from.y];
      const distance = Math.hypot(x, y) || 1;
      const pull = ((distance - LENGTH) / distance) * 0.06;
      from.dx += x * pull; from.dy += y * pull;
      to.dx -= x * pull; to.dy -= y * pull;
    }
    for (const place of places) {
      place.dx -= place.x * 0.004; place.dy -= place.y * 0.004;
      const speed = Math.hypot(place.dx, place.dy);
      const most = 24 * this.heat;
      const part = speed > most ? most / speed : 1;
      if (!place.held) { place.x += place.dx * part; place.y += place.dy * part; }
      place.dx = 0; place.dy = 0;
    }
    this.heat *= 0.985;
    return true;
  }

  #repel(places) {
    const cells = new Map();
    const key = (x, y) => `${x},${y}`;
    for (const place of places) {
      place.cx = Math.floor(place.x / REACH); place.cy = Math.floor(place.y / REACH);
      const cell = key(place.cx, place.cy);
      if (!cells.has(cell)) cells.set(cell, []);
      cells.get(cell).push(place);
    }
    for (const place of places) {
      for (let cx = place.cx - 1; cx <= place.cx + 1; cx++) {
        for (let cy = place.cy - 1; cy <= place.cy + 1; cy++) {
          for (const other of cells.get(key(cx, cy)) ?? []) {
            if (other === place) continue;
            const [x, y] = [place.x - other.x || 0.1, place.y - other.y || 0.1];
            const squared = x * x + y * y;
            if (squared > REACH * REACH) continue;
            const push = 1500 / Math.max(squared, 60);
            place.dx += (x * push) / 6; place.dy += (y * push) / 6;
          }
        }
      }
    }
  }

  bounds() {
    const places = [...this.places.values()];
    if (places.length === 0) return { left: -100, right: 100, top: -100, bottom: 100 };
    const [xs, ys] = [places.map((place) => place.x), places.map((place) => place.y)];
    return { left: Math.min(...xs), right: Math.max(...xs), top: Math.min(...ys), bottom: Math.max(...ys) };
  }
}
