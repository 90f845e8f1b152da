// Nodes' daemons, waypoints and gateways: certificates, generations, and what is amiss.

import { time } from "./details.js";
import { element, list, pairs, span } from "./element.js";

const soon = (left, lasts) => left < 0.25 * lasts;
const findings = (config) => span(config.errors ? "bad" : "", `${config.errors} errors, ${config.warnings} warnings`);
const generation = (config) => `${config.generation}: ${config.workloads} workloads, ${config.services} services`;

function nodeCard(node) {
  const { status } = node;
  const missing = status?.dataPath.hooks.filter((hook) => !hook.present).map((hook) => hook.name) ?? [];
  const rows = node.certificates.map((held) => element("tr", {}, element("td", {}, held.identity),
    element("td", { class: soon(held.expiresInSeconds ?? 0, (held.notAfter ?? 0) - (held.notBefore ?? 0)) ? "bad" : "" },
      held.expiresInSeconds === undefined ? "none yet" : time(held.expiresInSeconds)),
    element("td", { class: "bad" }, held.error ?? "")));
  return element("article", { class: "card", "data-node": node.name },
    element("h2", {}, node.name),
    node.error ? element("p", { class: "bad" }, node.error) : null,
    status ? pairs([
      ["Version", `${status.version}, up ${time(status.uptimeSeconds)}, ${status.connections} connections`],
      ["Generation", generation(status.config)],
      ["Findings", findings(status.config)],
      ["Pods", span(status.pods.pending ? "bad" : "", `${status.pods.enrolled} of ${status.pods.desired} in the mesh`)],
      ["Hooks", span(missing.length ? "bad" : "good", missing.length ? `missing: ${missing.join(", ")}` : "all attached")],
    ]) : null,
    status?.pods.waiting.length ? list(status.pods.waiting, (pod) => `${pod.namespace}/${pod.name} ${pod.state}: ${pod.reason}`) : null,
    element("table", {}, element("thead", {}, element("tr", {}, ...["Certificate of", "Ends in", ""].map((name) => element("th", { scope: "col" }, name)))), element("tbody", {}, ...rows)));
}

function proxyCard(proxy) {
  const { status } = proxy;
  const certificate = () => {
    if (status.certificateError) return span("bad", status.certificateError.error);
    const left = status.certificateExpiresInSeconds;
    return left === undefined ? span("bad", "none yet") : `${status.identity}, ends in ${time(left)}`;
  };
  return element("article", { class: "card", "data-proxy": status?.gateway ?? proxy.name },
    element("h2", {}, status ? `${status.ports.length ? "Gateway" : "Waypoint"} ${status.gateway}` : proxy.name),
    proxy.error ? element("p", { class: "bad" }, proxy.error) : null,
    status ? pairs([
      ["Pod", status.pod ?? "unknown"],
      ["Version", `${status.version}, up ${time(status.uptimeSeconds)}, ${status.connections} connections${status.draining ? ", draining" : ""}`],
      ["Generation", generation(status.config)],
      ["Findings", findings(status.config)],
      ["Requests", `${status.threads.reduce((sum, thread) => sum + thread.active, 0)} under way, ${status.threads.reduce((sum, thread) => sum + thread.served, 0)} served`],
      ["Certificate", certificate()],
    ]) : null);
}

export const nodesView = (mesh) => [...mesh.nodes.map(nodeCard), ...mesh.proxies.map(proxyCard)];
