// The layout of graphs.
export { graphlib, layout } from "@dagrejs/dagre";
