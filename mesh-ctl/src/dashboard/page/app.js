// The page: views, the list of edges, what is selected.

import { Graph } from "./graph.js";
import { deniedBy, edgeDetails, flowsOf, strictView, troublesOf, whyOf, whyRequest } from "./details.js";
import { element } from "./element.js";
import { linksOf } from "./links.js";
import { nodesView } from "./nodes.js";
import { circuitsOf, milliseconds, openOf, servicesView, splitsOf } from "./services.js";
import { follow } from "./stream.js";

const find = (id) => document.getElementById(id);
// The lock of what is encrypted is drawn by the style.
const SIGNS = { waypoint: "", tls: "", hbone: "", direct: "⇉", plaintext: "⚠︎" };
const known = { graph: { nodes: [], edges: [] }, services: { services: [], ejected: [] }, mesh: { nodes: [], proxies: [], namespaces: [], links: {} } };
let selected = null;

const graph = new Graph(find("graph"), select);
// For who drives the page: where an edge is drawn.
globalThis.meshMiddleOf = (from, to) => graph.middleOf(from, to);

const serviceOf = (edge) => known.services.services.find((service) => service.name === edge.serviceName);

function visible() {
  const [namespace, words] = [find("namespace").value, find("find").value.trim().toLowerCase()];
  const matches = (edge) =>
    (!edge.leg || edge.denied > 0 || find("legs").checked) &&
    (!namespace || edge.from.startsWith(`${namespace}/`) || edge.to.startsWith(`${namespace}/`)) &&
    (!words || `${edge.from} ${edge.to} ${edge.service ?? ""}`.toLowerCase().includes(words));
  const edges = known.graph.edges.filter(matches);
  const open = new Map(known.services.services.map((service) => [service.name, openOf(service)]));
  for (const edge of edges) edge.circuit = open.get(edge.serviceName) ?? "";
  const used = new Set(edges.flatMap((edge) => [edge.from, edge.to]));
  return { edges, nodes: known.graph.nodes.filter((node) => used.has(node.id)) };
}

function show() {
  const data = visible();
  graph.show(data, selected, known.services.ejected);
  showEdges(data.edges);
  showDetails();
}

const busy = (edge) => edge.requests?.rate ?? edge.rate;

// Denied first, then by rate. Buttons are kept while their edges are, so that the keyboard's focus stays where it is.
function showEdges(edges) {
  const place = find("edges");
  const old = new Map([...place.children].map((item) => [item.firstChild.dataset.key, item]));
  const order = [...edges].sort((one, other) => other.denied - one.denied || busy(other) - busy(one) || (one.key < other.key ? -1 : 1));
  const focused = document.activeElement?.dataset?.key;
  const items = order.slice(0, 600).map((edge) => {
    const item = old.get(edge.key) ?? element("li", {}, edgeButton(edge));
    fill(item.firstChild, edge);
    return item;
  });
  const settled = items.length === place.children.length && items.every((item, index) => item === place.children[index]);
  // The order changes only while nobody is in the list.
  if (settled || (focused && items.length === place.children.length)) return;
  place.replaceChildren(...items);
  if (focused) old.get(focused)?.firstChild.focus();
}

function edgeButton(edge) {
  const button = element("button", { type: "button" }, element("span", { class: "sign" }), element("span", { class: "name" }), element("span", { class: "rate" }));
  button.dataset.key = edge.key;
  button.dataset.from = edge.from;
  button.dataset.to = edge.to;
  button.addEventListener("click", () => select(edge.key));
  return button;
}

function fill(button, edge) {
  const denied = edge.denied > 0;
  const [sign, name, rate] = button.children;
  button.dataset.way = denied ? "denied" : edge.way;
  button.setAttribute("aria-pressed", String(selected === edge.key));
  sign.className = `sign ${denied ? "denied" : edge.way}`;
  sign.textContent = denied ? "✕" : SIGNS[edge.way];
  name.textContent = `${edge.from} → ${edge.to}${edge.circuit ? ` (${edge.circuit})` : ""}${denied && edge.policy ? `: denied${deniedBy(edge.policy)}` : ""}`;
  const failed = Math.max(edge.errors, edge.requests?.failed ?? 0);
  const words = [`${busy(edge).toFixed(1)}${edge.requests ? " req" : ""}/s`];
  if (edge.requests) words.push(`p50 ${milliseconds(edge.requests.p50)}, p99 ${milliseconds(edge.requests.p99)} ms`);
  if (failed > 0) words.push(`${(100 * failed).toFixed(0)}% failed`);
  rate.textContent = words.join(", ");
}

function select(key) {
  selected = selected === key ? null : key;
  find("details").replaceChildren();
  show();
  const edge = known.graph.edges.find((it) => it.key === selected);
  if (edge) askAbout(edge);
}

function showDetails() {
  const [place, edge] = [find("details"), known.graph.edges.find((it) => it.key === selected)];
  place.hidden = !edge;
  if (!edge) return;
  const close = element("button", { type: "button" }, "Close");
  close.addEventListener("click", () => select(selected));
  const told = place.querySelector(".told") ?? element("div", { class: "told" });
  const service = serviceOf(edge);
  told.replaceChildren(...edgeDetails(edge, linksOf(edge, known.graph.nodes, known.mesh.links)), ...titled("Shares wanted and seen", splitsOf(service)), ...titled("Circuits", circuitsOf(service)));
  if (!told.parentNode) {
    const answers = ["Flows now", "Why"].map((title) => [element("h3", {}, title), element("div", { "data-answer": title }, "asking")]);
    place.append(close, told, element("div", { class: "troubles" }), ...answers.flat());
  }
  showTroubles(edge);
}

const titled = (title, parts) => (parts.length ? [element("h3", {}, title), ...parts] : []);

// Buttons stay while there is no news, so that the keyboard's focus does.
function showTroubles(edge) {
  const place = find("details").querySelector(".troubles");
  const news = JSON.stringify(edge.troubles);
  if (place.dataset.news === news || place.contains(document.activeElement)) return;
  place.dataset.news = news;
  place.replaceChildren(...troublesOf(edge, known.mesh.links, (asked) => answer(edge.key, "Why", () => whyRequest(asked))));
}

function askAbout(edge) {
  answer(edge.key, "Flows now", () => flowsOf(edge));
  answer(edge.key, "Why", () => whyOf(edge));
}

// What was asked last of each title: an answer to what was asked before comes too late.
const last = {};

async function answer(key, title, question) {
  const number = (last[title] = (last[title] ?? 0) + 1);
  const said = await question().catch((error) => [element("p", { class: "bad" }, error.message)]);
  if (selected === key && last[title] === number) find("details").querySelector(`[data-answer="${title}"]`)?.replaceChildren(...said);
}

function showServices() {
  if (find("view-services").hidden) return;
  const words = find("find").value.trim().toLowerCase();
  find("view-services").replaceChildren(...servicesView(known.services.services, find("namespace").value, words));
}

function showMesh() {
  find("view-nodes").replaceChildren(...nodesView(known.mesh));
  find("view-strict").replaceChildren(...strictView(known.mesh));
  const choice = find("namespace");
  const names = [...new Set(known.graph.nodes.map((node) => node.namespace).filter(Boolean))].sort();
  if (names.join() === choice.dataset.names) return;
  choice.dataset.names = names.join();
  const before = choice.value;
  choice.replaceChildren(element("option", { value: "" }, "all"), ...names.map((name) => element("option", { value: name }, name)));
  choice.value = names.includes(before) ? before : "";
}

function open(tab) {
  for (const other of document.querySelectorAll("[role=tab]")) {
    const chosen = other === tab;
    other.setAttribute("aria-selected", String(chosen));
    other.tabIndex = chosen ? 0 : -1;
    find(other.getAttribute("aria-controls")).hidden = !chosen;
  }
  tab.focus();
  graph.redraw();
  showServices();
}

const tabs = [...document.querySelectorAll("[role=tab]")];
for (const [index, tab] of tabs.entries()) {
  tab.addEventListener("click", () => open(tab));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) open(tabs[(index + step + tabs.length) % tabs.length]);
  });
}
find("edges").addEventListener("keydown", (event) => {
  const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
  const next = step && event.target.parentElement[step]?.firstChild;
  if (next) { next.focus(); event.preventDefault(); }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && selected) select(selected);
  if (event.key === "/" && document.activeElement !== find("find")) { find("find").focus(); event.preventDefault(); }
});
for (const [id, kind] of [["namespace", "change"], ["find", "input"], ["legs", "change"]]) {
  find(id).addEventListener(kind, () => { show(); showServices(); });
}
find("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  graph.redraw();
});

follow({
  state(sentence, bad) {
    find("state").textContent = sentence;
    find("state").classList.toggle("bad", bad);
  },
  graph(data) {
    for (const edge of data.edges) edge.key = `${edge.from} ${edge.to}`;
    known.graph = data;
    if (data.lost) find("state").textContent = `live; ${data.lost} events were not read in time`;
    show();
    showMesh();
  },
  services(data) {
    known.services = data;
    show();
    showServices();
  },
  mesh(data) {
    known.mesh = data;
    showMesh();
  },
});
