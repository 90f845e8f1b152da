// What is said of one edge, of the nodes and of namespaces. Names come from manifests and peers: they are only ever text.

import { ask } from "./stream.js";

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const list = (items, make) => element("ul", {}, ...items.map((item) => element("li", {}, make(item))));
const pairs = (all) => element("dl", {}, ...all.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
const WAYS = { hbone: "encrypted: mTLS between nodes (HBONE)", direct: "direct: stays within one kernel, which attests both ends", plaintext: "plaintext" };

export function bytes(count) {
  const units = ["B", "kB", "MB", "GB"];
  const power = count > 0 ? Math.min(Math.floor(Math.log10(count) / 3), 3) : 0;
  return `${(count / 1000 ** power).toFixed(power ? 1 : 0)} ${units[power]}`;
}

function time(seconds) {
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}

// One edge: its figures, what went wrong, and room for what is asked for.
export function edgeDetails(edge) {
  const denied = edge.denied > 0;
  const parts = [
    element("h2", {}, `${edge.from} → ${edge.to}`),
    pairs([
      ["Way", element("span", { class: edge.way }, WAYS[edge.way])],
      ["Service", edge.service ?? "none: by address"],
      ["Connections", `${edge.rate.toFixed(1)} a second, ${edge.open} open`],
      ["Payload", `${bytes(edge.bytes)} a second`],
      ["Failed", element("span", { class: edge.errors > 0 ? "bad" : "" }, `${(100 * edge.errors).toFixed(1)}%`)],
    ]),
    denied ? element("p", { class: "denied", id: "denied" }, `Denied ${edge.denied.toFixed(1)} a second by ${edge.policy ?? "policy"}`) : null,
  ];
  if (edge.troubles.length > 0) {
    parts.push(element("h3", {}, "Last errors"), list(edge.troubles, (trouble) =>
      `${new Date(trouble.at).toLocaleTimeString()} ${trouble.end}${trouble.detail ? `: ${trouble.detail}` : ""}`));
  }
  return parts.filter((part) => part);
}

export async function flowsOf(edge) {
  const flows = await ask("/api/edge", { from: edge.from, to: edge.to });
  if (flows.length === 0) return [element("p", { class: "soft" }, "None is open at this moment.")];
  return [list(flows, (flow) =>
    `${flow.source.pod ?? ""} ${flow.source.address ?? ""} → ${flow.destination.pod ?? ""} ${flow.destination.address ?? ""}, ` +
    `${time(flow.ageSeconds)}, ${bytes(flow.bytesFromClient)} there, ${bytes(flow.bytesToClient)} back`)];
}

function verdict(policy) {
  if (policy.matchedRule !== undefined) return `rule ${policy.matchedRule} matches`;
  return `does not match${policy.misses.length ? `: ${policy.misses.map((miss) => `${miss.field} is not ${miss.found}`).join(", ")}` : ""}`;
}

export async function whyOf(edge) {
  const why = await ask("/api/why", { src: edge.source, dst: edge.destination });
  const parts = [element("p", { class: why.allowed ? "good" : "denied" }, why.summary)];
  for (const way of why.ways) {
    parts.push(element("p", {}, `${way.endpoint}: ${way.path}, ${way.pathReason}. ${way.reason}`));
    if (way.policies.length > 0) {
      parts.push(list(way.policies, (policy) => `${policy.action} ${policy.policy} (${policy.scope}): ${verdict(policy)}`));
    }
  }
  return parts;
}

export function nodesView(mesh) {
  return mesh.nodes.map((node) => {
    const { status } = node;
    const missing = status?.dataPath.hooks.filter((hook) => !hook.present).map((hook) => hook.name) ?? [];
    const rows = node.certificates.map((held) => {
      const soon = (held.expiresInSeconds ?? 0) < 0.25 * ((held.notAfter ?? 0) - (held.notBefore ?? 0));
      return element("tr", {}, element("td", {}, held.identity),
        element("td", { class: soon ? "bad" : "" }, held.expiresInSeconds === undefined ? "none yet" : time(held.expiresInSeconds)),
        element("td", { class: "bad" }, held.error ?? ""));
    });
    return element("article", { class: "card", "data-node": node.name },
      element("h2", {}, node.name),
      node.error ? element("p", { class: "bad" }, node.error) : null,
      status ? pairs([
        ["Version", `${status.version}, up ${time(status.uptimeSeconds)}, ${status.connections} connections`],
        ["Generation", `${status.config.generation}: ${status.config.workloads} workloads, ${status.config.services} services`],
        ["Findings", element("span", { class: status.config.errors ? "bad" : "" }, `${status.config.errors} errors, ${status.config.warnings} warnings`)],
        ["Pods", element("span", { class: status.pods.pending ? "bad" : "" }, `${status.pods.enrolled} of ${status.pods.desired} in the mesh`)],
        ["Hooks", element("span", { class: missing.length ? "bad" : "good" }, missing.length ? `missing: ${missing.join(", ")}` : "all attached")],
      ]) : null,
      status?.pods.waiting.length ? list(status.pods.waiting, (pod) => `${pod.namespace}/${pod.name} ${pod.state}: ${pod.reason}`) : null,
      element("table", {}, element("thead", {}, element("tr", {}, ...["Certificate of", "Ends in", ""].map((name) => element("th", {}, name)))), element("tbody", {}, ...rows)));
  });
}

export function strictView(mesh) {
  return mesh.namespaces.map((namespace) => {
    const strict = namespace.mode === "STRICT";
    const ready = namespace.enrolled === namespace.pods && namespace.plaintext.length === 0;
    const verdict = strict ? "STRICT is in force" : ready ? "Ready for STRICT" : namespace.enrolled === 0 ? "Not in the mesh" : "Not ready for STRICT";
    return element("article", { class: "card", "data-namespace": namespace.name },
      element("h2", {}, namespace.name),
      element("p", { class: strict || ready ? "good" : "bad" }, verdict),
      pairs([["Pods in the mesh", `${namespace.enrolled} of ${namespace.pods}`], ["Mode", namespace.mode ?? "PERMISSIVE, by default"]]),
      namespace.plaintext.length ? element("h3", {}, "Came in plaintext since this page's program was started") : null,
      namespace.plaintext.length ? list(namespace.plaintext, (pair) => pair) : null,
      namespace.outside.length ? element("h3", {}, "Not in the mesh") : null,
      namespace.outside.length ? list(namespace.outside, (pod) => pod) : null);
  });
}
