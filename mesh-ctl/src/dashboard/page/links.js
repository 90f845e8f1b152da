// Links to Jaeger and Grafana, where mesh-ctl was told of them. Names come from manifests and peers: they go into queries, escaped.

import { element } from "./element.js";

const link = (address, text) => element("a", { href: address, target: "_blank", rel: "noopener noreferrer" }, text);

// A workload's name without its namespace; none for an address.
const workload = (id, nodes) => nodes.find((node) => node.id === id && node.namespace);

// A Service of the cluster by its host.
const service = (host) => /^([^.]+)\.([^.]+)\.svc\./.exec(host ?? "")?.slice(1);

export function linksOf(edge, nodes, links) {
  const [from, to] = [workload(edge.from, nodes), workload(edge.to, nodes)];
  return [...traces(edge, from, to, links.jaeger), ...boards(edge, from, to, links.grafana)];
}

export const traceOf = (trace, links) => links.jaeger && trace ? link(`${links.jaeger}/trace/${encodeURIComponent(trace)}`, "Trace") : null;

// Nodes' spans of an edge, and with them the traces that they belong to.
function traces(edge, from, to, jaeger) {
  if (!jaeger || !(from || to)) return [];
  const tags = {};
  if (from) [tags["mesh.client.namespace"], tags["mesh.client.workload"]] = [from.namespace, from.name];
  if (edge.service) tags["mesh.server.service"] = edge.service;
  else if (to) [tags["mesh.server.namespace"], tags["mesh.server.workload"]] = [to.namespace, to.name];
  const query = new URLSearchParams({ service: "mesh-node", tags: JSON.stringify(tags), lookback: "1h", limit: "20" });
  return [link(`${jaeger}/search?${query}`, "Traces in Jaeger")];
}

function boards(edge, from, to, grafana) {
  if (!grafana) return [];
  const board = (uid, variables, text) =>
    link(`${grafana}/d/${uid}?${new URLSearchParams({ ...variables, from: "now-1h", to: "now" })}`, text);
  const of = service(edge.service);
  const links = of ? [board("mesh-service", { "var-namespace": of[1], "var-service": of[0] }, `Grafana: Service ${of[0]}`)] : [];
  for (const end of [from, to].filter((end) => end)) {
    links.push(board("mesh-workload", { "var-namespace": end.namespace, "var-workload": end.name }, `Grafana: workload ${end.name}`));
  }
  return links;
}
