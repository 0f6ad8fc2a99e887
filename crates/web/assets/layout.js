// Places of nodes: dagre for graphs that people read, ranks with sorted columns for large ones, which dagre takes seconds
// for.

const DAGRE_MAX = 150;
const GAP = { x: 70, y: 18 };

let dagre;

/** Gives each node `x` and `y` (its centre), and each edge its `points`. */
export async function place(nodes, edges) {
  if (nodes.length <= DAGRE_MAX) {
    dagre ??= await import("./vendor-dagre.js");
    placeByDagre(nodes, edges);
  } else {
    placeByRank(nodes, edges);
  }
}

function placeByDagre(nodes, edges) {
  const graph = new dagre.graphlib.Graph({ multigraph: false });
  graph.setGraph({ rankdir: "LR", nodesep: GAP.y, ranksep: GAP.x, marginx: 10, marginy: 10 });
  // Names of users must not meet those of objects' prototypes.
  nodes.forEach((node, at) => graph.setNode(String(at), { width: node.width, height: node.height }));
  const place = new Map(nodes.map((node, at) => [node.id, String(at)]));
  for (const edge of edges) graph.setEdge(place.get(edge.from), place.get(edge.to), {});
  dagre.layout(graph);
  nodes.forEach((node, at) => {
    const { x, y } = graph.node(String(at));
    [node.x, node.y] = [x, y];
  });
  for (const edge of edges) edge.points = graph.edge(place.get(edge.from), place.get(edge.to)).points;
}

/** Returns the rank of each node: one more than the highest of those that it reads. */
function ranks(nodes, edges) {
  const inputs = new Map(nodes.map((node) => [node.id, 0]));
  const outputs = new Map(nodes.map((node) => [node.id, []]));
  for (const { from, to } of edges) {
    inputs.set(to, inputs.get(to) + 1);
    outputs.get(from).push(to);
  }
  const rank = new Map(nodes.map((node) => [node.id, 0]));
  const ready = nodes.filter((node) => inputs.get(node.id) === 0).map((node) => node.id);
  for (let at = 0; at < ready.length; at += 1) {
    for (const to of outputs.get(ready[at])) {
      rank.set(to, Math.max(rank.get(to), rank.get(ready[at]) + 1));
      inputs.set(to, inputs.get(to) - 1);
      if (inputs.get(to) === 0) ready.push(to);
    }
  }
  return rank;
}

/** Sorts each rank by the mean place of its neighbours (Sugiyama's barycentres), and breaks long ranks into columns. */
function placeByRank(nodes, edges) {
  const rank = ranks(nodes, edges);
  const layers = [];
  for (const node of nodes) (layers[rank.get(node.id)] ??= []).push(node);
  const neighbours = { before: new Map(), after: new Map() };
  for (const { from, to } of edges) {
    (neighbours.before.get(to) ?? neighbours.before.set(to, []).get(to)).push(from);
    (neighbours.after.get(from) ?? neighbours.after.set(from, []).get(from)).push(to);
  }
  const order = new Map();
  const settle = (layer) => layer.forEach((node, at) => order.set(node.id, at / layer.length));
  layers.forEach(settle);
  const sweep = (layer, side) => {
    const centre = new Map(layer.map((node) => {
      const of = side.get(node.id) ?? [];
      return [node.id, of.length ? of.reduce((sum, id) => sum + order.get(id), 0) / of.length : order.get(node.id)];
    }));
    layer.sort((a, b) => centre.get(a.id) - centre.get(b.id));
    settle(layer);
  };
  for (let round = 0; round < 4; round += 1) {
    layers.forEach((layer) => sweep(layer, neighbours.before));
    [...layers].reverse().forEach((layer) => sweep(layer, neighbours.after));
  }
  // About as wide as a window.
  const tall = Math.max(12, Math.ceil(1.5 * Math.sqrt(nodes.length)));
  let x = 0;
  for (const layer of layers) {
    const columns = Math.ceil(layer.length / tall);
    const rows = Math.ceil(layer.length / columns);
    layer.forEach((node, at) => {
      node.x = x + Math.floor(at / rows) * (node.width + 24) + node.width / 2;
      node.y = ((at % rows) - rows / 2) * (node.height + GAP.y);
    });
    x += columns * (layer[0].width + 24) + GAP.x;
  }
  for (const edge of edges) edge.points = null;
}
