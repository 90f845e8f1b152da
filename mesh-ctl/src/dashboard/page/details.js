// What is said of one edge, and of namespaces.

import { element, list, pairs, span } from "./element.js";
import { traceOf } from "./links.js";
import { milliseconds } from "./services.js";
import { ask } from "./stream.js";

const WAYS = { waypoint: "by a waypoint, encrypted on both sides of it", tls: "encrypted: TLS up to the gateway", hbone: "encrypted: mTLS between nodes (HBONE)", direct: "direct: stays within one kernel, which attests both ends", plaintext: "plaintext" };

export function bytes(count) {
  const units = ["B", "kB", "MB", "GB"];
  const power = count > 0 ? Math.min(Math.floor(Math.log10(count) / 3), 3) : 0;
  return `${(count / 1000 ** power).toFixed(power ? 1 : 0)} ${units[power]}`;
}

export function time(seconds) {
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}

// One edge: its figures, what went wrong, and room for what is asked for.
export function edgeDetails(edge, links) {
  const denied = edge.denied > 0;
  const parts = [
    element("h2", {}, `${edge.from} → ${edge.to}`),
    pairs([
      ["Way", span(edge.way, WAYS[edge.way])],
      ["Service", edge.service ?? "none: by address"],
      ...requests(edge.requests),
      ["Connections", `${edge.rate.toFixed(1)} a second, ${edge.open} open`],
      ["Payload", `${bytes(edge.bytes)} a second`],
      ["Failed", span(edge.errors > 0 ? "bad" : "", `${(100 * edge.errors).toFixed(1)}% of connections`)],
    ]),
    links.length > 0 ? element("p", { class: "links" }, ...links) : null,
    denied ? element("p", { class: "denied", id: "denied" }, `Denied ${edge.denied.toFixed(1)} a second${deniedBy(edge.policy)}`) : null,
  ];
  return parts.filter((part) => part);
}

// What decided is a policy's name, or a sentence.
export function deniedBy(policy) {
  if (!policy) return " by policy";
  return /^(\w+Policy|\w+Authentication|authorizer) /.test(policy) ? ` by ${policy.replace(/ denies it$/, "")}` : `: ${policy}`;
}

function requests(told) {
  if (!told) return [];
  return [
    ["Requests", `${told.rate.toFixed(1)} a second`],
    ["Durations", `p50 ${milliseconds(told.p50)} ms, p99 ${milliseconds(told.p99)} ms`],
    ["Failed", span(told.failed > 0 ? "bad" : "", `${(100 * told.failed).toFixed(1)}% of requests`)],
  ];
}

// The last that went wrong; a request among them can be asked about.
export function troublesOf(edge, links, onAsk) {
  if (edge.troubles.length === 0) return [];
  const line = (trouble) => {
    const what = trouble.end === "request" ? "" : `${trouble.end}${trouble.detail ? ": " : ""}`;
    const said = element("span", {}, `${new Date(trouble.at).toLocaleTimeString()} ${what}${trouble.detail ?? ""}`);
    const trace = traceOf(trouble.trace, links);
    if (!trouble.ask) return element("span", {}, said, trace ? " " : null, trace);
    const why = element("button", { type: "button", class: "ask" }, "Why?");
    why.addEventListener("click", () => onAsk(trouble.ask));
    return element("span", {}, said, " ", why, trace ? " " : null, trace);
  };
  return [element("h3", {}, "Last errors"), list(edge.troubles, line)];
}

// Why, of a request, in the words of `mesh-ctl why`.
export async function whyRequest(asked) {
  const question = Object.fromEntries(Object.entries(asked).filter(([, value]) => value !== null));
  const why = await ask("/api/request", question);
  return [element("p", {}, `${asked.method} ${asked.url}`), element("pre", { class: why.served ? "" : "denied" }, why.text)];
}

// Connections that are open, and the requests that whoever sees them told of last.
export async function flowsOf(edge) {
  const { connections, requests } = await ask("/api/edge", { from: edge.from, to: edge.to });
  const open = (flow) =>
    `${flow.source.pod ?? ""} ${flow.source.address ?? ""} → ${flow.destination.pod ?? ""} ${flow.destination.address ?? ""}, ` +
    `${time(flow.ageSeconds)}, ${bytes(flow.bytesFromClient)} there, ${bytes(flow.bytesToClient)} back`;
  const over = (request) => `${new Date(request.at).toLocaleTimeString()} ${request.from} → ${request.to || "nobody"}, ${request.words}, by the ${request.by}`;
  return [
    connections.length ? list(connections, open) : element("p", { class: "soft" }, edge.way === "waypoint" ? "Connections end at the waypoint." : "None is open at this moment."),
    ...(requests.length ? [element("p", { class: "soft" }, "Requests of the last seconds"), list(requests, over)] : []),
  ];
}

function verdict(policy) {
  if (policy.matchedRule !== undefined) return `rule ${policy.matchedRule} matches`;
  return `does not match${policy.misses.length ? `: ${policy.misses.map((miss) => `${miss.field} is not ${miss.found}`).join(", ")}` : ""}`;
}

export async function whyOf(edge) {
  if (edge.ask) return whyRequest(edge.troubles.find((trouble) => trouble.ask)?.ask ?? edge.ask);
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
