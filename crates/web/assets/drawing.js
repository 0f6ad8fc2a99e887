// A graph on a canvas: drawn as far as it is visible, moved and zoomed by pointer, wheel and keys.

import { contextOf } from "./charts.js";
import { oncePerFrame, percent } from "./elements.js";

const ZOOM = { min: 0.02, max: 2.5, step: 1.25 };
/** Below this zoom texts can't be read and are left out. */
const READABLE = 0.38;

/** More edges than these are left out while the graph is moved, and drawn when it has stood still for a moment. */
const EDGES_MAX = 1500;
const SETTLED_MS = 150;

/** Nodes that are named where texts are too small. */
const LABELLED = 5;

const heat = (share, colors) => (share >= 0.3 ? colors.bad : share >= 0.1 ? colors.warn : colors.first);

const within = (value, least, most) => Math.min(most, Math.max(least, value));

export class Drawing {
  /** Draws in the next frame. */
  redraw = oncePerFrame(() => this.draw());

  /** `onSelect` gets a node, `onOpen` one that is opened. */
  constructor(canvas, { onSelect, onOpen }) {
    Object.assign(this, { canvas, onSelect, onOpen, nodes: [], edges: [], byId: new Map(), selected: null, frames: 0, isFitted: true, movedAt: -Infinity });
    this.view = { x: 0, y: 0, zoom: 1 };
    this.pointers = new Map();
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => this.up(event));
    canvas.addEventListener("dblclick", (event) => {
      const node = this.at(event);
      if (node) onOpen(node);
    });
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoomBy(Math.exp(-within(event.deltaY, -100, 100) * 0.004), event.offsetX, event.offsetY);
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => (this.isFitted ? this.fit() : this.redraw())).observe(canvas);
  }

  /** Shows other nodes and edges. */
  set(nodes, edges) {
    this.byId = new Map(nodes.map((node) => [node.id, node]));
    this.nodes = nodes;
    this.edges = edges.map((edge) => ({ ...edge, source: this.byId.get(edge.from), target: this.byId.get(edge.to) }));
    this.selected = this.selected && (this.byId.get(this.selected.id) ?? null);
    this.redraw();
  }

  /** Returns true while a graph with very many edges is moved: they would slow it down. */
  isMoving() {
    return this.edges.length > EDGES_MAX && performance.now() - this.movedAt < SETTLED_MS;
  }

  redrawLater() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.redraw(), SETTLED_MS + 20);
  }

  /** Makes everything visible. */
  fit() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!this.nodes.length || !width) return;
    const box = { left: Infinity, right: -Infinity, top: Infinity, bottom: -Infinity };
    for (const node of this.nodes) {
      box.left = Math.min(box.left, node.x - node.width / 2);
      box.right = Math.max(box.right, node.x + node.width / 2);
      box.top = Math.min(box.top, node.y - node.height / 2);
      box.bottom = Math.max(box.bottom, node.y + node.height / 2);
    }
    const zoom = within(Math.min((width - 30) / (box.right - box.left), (height - 30) / (box.bottom - box.top)), ZOOM.min, 1.2);
    this.isFitted = true;
    this.view = { zoom, x: width / 2 - ((box.left + box.right) / 2) * zoom, y: height / 2 - ((box.top + box.bottom) / 2) * zoom };
    this.redraw();
  }

  zoomBy(factor, x = this.canvas.clientWidth / 2, y = this.canvas.clientHeight / 2) {
    const zoom = within(this.view.zoom * factor, ZOOM.min, ZOOM.max);
    const by = zoom / this.view.zoom;
    this.isFitted = false;
    this.movedAt = performance.now();
    this.view = { zoom, x: x - (x - this.view.x) * by, y: y - (y - this.view.y) * by };
    this.redraw();
  }

  panBy(x, y) {
    this.isFitted = false;
    this.movedAt = performance.now();
    this.view.x += x;
    this.view.y += y;
    this.redraw();
  }

  /** Selects a node and brings it into sight. */
  select(node) {
    this.selected = node;
    if (node) {
      const { zoom } = this.view;
      const [x, y] = [node.x * zoom + this.view.x, node.y * zoom + this.view.y];
      const { clientWidth: width, clientHeight: height } = this.canvas;
      const halfWidth = Math.min((node.width * zoom) / 2, width / 2);
      this.view.x += within(x, halfWidth, width - halfWidth) - x;
      this.view.y += within(y, 20, height - 20) - y;
    }
    this.redraw();
    this.onSelect(node);
  }

  /** Returns the node below the pointer. */
  at({ offsetX, offsetY }) {
    const x = (offsetX - this.view.x) / this.view.zoom;
    const y = (offsetY - this.view.y) / this.view.zoom;
    return this.nodes.find((node) => Math.abs(node.x - x) <= node.width / 2 && Math.abs(node.y - y) <= node.height / 2);
  }

  down(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, event);
    this.moved = 0;
  }

  move(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) {
      this.canvas.classList.toggle("on-node", Boolean(this.at(event)));
      return;
    }
    const others = [...this.pointers.values()].filter((of) => of.pointerId !== event.pointerId);
    if (others.length) {
      // Two fingers zoom.
      const far = (of) => Math.hypot(of.offsetX - others[0].offsetX, of.offsetY - others[0].offsetY);
      this.zoomBy(far(event) / Math.max(1, far(before)), (event.offsetX + others[0].offsetX) / 2,
        (event.offsetY + others[0].offsetY) / 2);
    } else {
      this.panBy(event.offsetX - before.offsetX, event.offsetY - before.offsetY);
    }
    this.moved += Math.abs(event.offsetX - before.offsetX) + Math.abs(event.offsetY - before.offsetY);
    this.pointers.set(event.pointerId, event);
  }

  up(event) {
    if (!this.pointers.delete(event.pointerId)) return;
    if (event.type === "pointerup" && this.moved < 5 && !this.pointers.size) this.select(this.at(event) ?? null);
  }

  key(event) {
    const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const way = ways[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (way && event.shiftKey) this.panBy(-way[0] * 60, -way[1] * 60);
    else if (way) this.step(way);
    else if (event.key === "+" || event.key === "=") this.zoomBy(ZOOM.step);
    else if (event.key === "-") this.zoomBy(1 / ZOOM.step);
    else if (event.key === "0") this.fit();
    else if (event.key === "Enter" && this.selected) this.onOpen(this.selected);
    else if (event.key === "Escape") this.select(null);
    else return;
    event.preventDefault();
  }

  /** Selects the nearest node in a direction. */
  step([right, down]) {
    const from = this.selected;
    if (!from) {
      if (this.nodes.length) this.select(this.nodes[0]);
      return;
    }
    let best = null;
    let least = Infinity;
    for (const node of this.nodes) {
      const along = (node.x - from.x) * right + (node.y - from.y) * down;
      const aside = Math.abs((node.x - from.x) * down) + Math.abs((node.y - from.y) * right);
      if (along > 1 && along + 3 * aside < least) [best, least] = [node, along + 3 * aside];
    }
    if (best) this.select(best);
  }

  draw() {
    const drawn = contextOf(this.canvas);
    if (!drawn) return;
    this.frames += 1;
    const { context, width, height, color } = drawn;
    const { x, y, zoom } = this.view;
    const colors = {};
    for (const name of ["paper", "panel", "ink", "soft", "line", "first", "second", "good", "warn", "bad", "focus"]) {
      colors[name] = color(`--${name}`);
    }
    const seen = { left: -x / zoom, right: (width - x) / zoom, top: -y / zoom, bottom: (height - y) / zoom };
    context.translate(x, y);
    context.scale(zoom, zoom);
    if (this.isMoving()) this.redrawLater();
    else this.drawEdges(context, seen, colors);
    for (const node of this.nodes) {
      const isSeen = node.x + node.width / 2 > seen.left && node.x - node.width / 2 < seen.right
        && node.y + node.height / 2 > seen.top && node.y - node.height / 2 < seen.bottom;
      if (isSeen) this.drawNode(context, node, colors);
    }
    if (zoom < READABLE) this.labelHottest(context, seen, colors);
  }

  /** Names the nodes that take most time where the texts of nodes are too small. */
  labelHottest(context, seen, colors) {
    const hottest = this.nodes.filter((node) => node.share >= 0.05).sort((a, b) => b.share - a.share).slice(0, LABELLED);
    const scale = 1 / this.view.zoom;
    context.font = `600 ${13 * scale}px system-ui, sans-serif`;
    for (const node of hottest.reverse()) {
      const text = `${node.title.slice(0, 40)} ${percent(node.share)}`;
      const width = context.measureText(text).width + 12 * scale;
      const left = Math.max(seen.left, Math.min(node.x - node.width / 2, seen.right - width - 2 * scale));
      const top = node.y - node.height / 2 - 22 * scale;
      context.fillStyle = colors.paper;
      context.fillRect(left, top, width, 20 * scale);
      context.strokeStyle = heat(node.share, colors);
      context.lineWidth = 2 * scale;
      context.strokeRect(left, top, width, 20 * scale);
      context.fillStyle = colors.ink;
      context.fillText(text, left + 6 * scale, top + 14.5 * scale);
    }
  }

  drawEdges(context, seen, colors) {
    const trace = (edge) => {
      const { source, target, points } = edge;
      const [x1, x2] = [source.x + source.width / 2, target.x - target.width / 2];
      if (Math.max(x1, x2) < seen.left || Math.min(x1, x2) > seen.right) return;
      if (Math.max(source.y, target.y) < seen.top - 400 || Math.min(source.y, target.y) > seen.bottom + 400) return;
      context.moveTo(x1, source.y);
      if (points && points.length > 2) {
        for (let at = 1; at < points.length - 1; at += 1) {
          const next = at === points.length - 2 ? { x: x2, y: target.y }
            : { x: (points[at].x + points[at + 1].x) / 2, y: (points[at].y + points[at + 1].y) / 2 };
          context.quadraticCurveTo(points[at].x, points[at].y, next.x, next.y);
        }
      } else {
        const bend = Math.max(30, Math.abs(x2 - x1) / 2);
        context.bezierCurveTo(x1 + bend, source.y, x2 - bend, target.y, x2, target.y);
      }
    };
    const isMarked = ({ source, target }) => this.selected && (source === this.selected || target === this.selected);
    context.lineWidth = Math.max(1.2, 0.7 / this.view.zoom);
    context.strokeStyle = colors.soft;
    context.globalAlpha = this.edges.length > 300 ? 0.35 : 0.8;
    context.beginPath();
    for (const edge of this.edges) if (!isMarked(edge)) trace(edge);
    context.stroke();
    context.globalAlpha = 1;
    if (!this.selected) return;
    context.strokeStyle = colors.focus;
    context.lineWidth *= 2;
    context.beginPath();
    for (const edge of this.edges) if (isMarked(edge)) trace(edge);
    context.stroke();
  }

  drawNode(context, node, colors) {
    const [left, top] = [node.x - node.width / 2, node.y - node.height / 2];
    const { width, height, share } = node;
    context.fillStyle = colors.panel;
    context.fillRect(left, top, width, height);
    if (share > 0) {
      // The bar and its colour show the share of the busy time; from far away the whole node has the colour.
      const isFar = this.view.zoom < READABLE;
      context.fillStyle = heat(share, colors);
      context.globalAlpha = isFar ? 0.25 + 0.75 * Math.min(1, share) : 0.22;
      context.fillRect(left, top, isFar && share >= 0.02 ? width : width * Math.min(1, share), height);
      context.globalAlpha = 1;
      context.fillRect(left, top + height - 4, width * Math.min(1, share), 4);
    }
    context.fillStyle = colors[node.tone] ?? colors.soft;
    context.fillRect(left, top, 5, height);
    const isHot = share >= 0.3;
    context.strokeStyle = node === this.selected ? colors.focus : node.isBad || isHot ? colors.bad : colors.line;
    context.lineWidth = node === this.selected ? 4 : node.isBad || isHot ? 2.5 : 1;
    context.strokeRect(left, top, width, height);
    if (this.view.zoom < READABLE) return;
    context.fillStyle = colors.ink;
    context.font = "600 13px system-ui, sans-serif";
    context.fillText(fitted(context, node, "title", width - (share > 0 ? 66 : 20)), left + 12, top + 18);
    if (share > 0) {
      const text = percent(share);
      context.fillText(text, left + width - 8 - context.measureText(text).width, top + 18);
    }
    context.fillStyle = node.isBad ? colors.bad : colors.soft;
    context.font = "12px system-ui, sans-serif";
    context.fillText(fitted(context, node, "note", width - 20), left + 12, top + 35);
  }
}

/** Returns a text of a node, shortened to a width. The last one is kept. */
function fitted(context, node, name, width) {
  const text = node[name] ?? "";
  const kept = node.fitted?.[name];
  if (kept && kept.text === text && kept.width === width) return kept.shown;
  let shown = text;
  if (context.measureText(text).width > width) {
    let [least, most] = [0, Math.min(text.length, 200)];
    while (least < most) {
      const middle = Math.ceil((least + most) / 2);
      if (context.measureText(text.slice(0, middle) + "…").width <= width) least = middle;
      else most = middle - 1;
    }
    shown = text.slice(0, least) + "…";
  }
  node.fitted = { ...node.fitted, [name]: { text, width, shown } };
  return shown;
}
