// Services: rates and durations, shares wanted and seen, and circuits: who is left out, and which bounds are met.

import { element, list, span } from "./element.js";

export const milliseconds = (value) => (value < 10 ? value.toFixed(1) : value.toFixed(0));
const percent = (value) => (value === null || value === undefined ? "-" : `${value.toFixed(1)}%`);
const share = (ratio) => (ratio === null || ratio === undefined ? "-" : percent(100 * ratio));
const known = (value, say) => (value === null || value === undefined ? "-" : say(value));
const HEADINGS = ["Service", "Requests/s", "Failed", "p50 ms", "p99 ms", "Connections/s", "Open", "mTLS", "Circuit"];

const table = (headings, rows) => element("table", {},
  element("thead", {}, element("tr", {}, ...headings.map((name) => element("th", { scope: "col" }, name)))),
  element("tbody", {}, ...rows));
const row = (attributes, cells) => element("tr", attributes, ...cells.map((cell) => element("td", {}, cell)));

// How far what was seen lies from what is wanted, by the spread that chance alone has: three times that is news.
function strays(one, all) {
  if (one.seen === null || all === 0) return false;
  const part = one.wanted / 100;
  return Math.abs(one.seen / 100 - part) > 3 * Math.sqrt((part * (1 - part)) / all) + 0.005;
}

export function splitsOf(service) {
  return (service?.splits ?? []).map((split) => {
    const all = split.shares.reduce((sum, one) => sum + one.requests, 0);
    const rows = split.shares.map((one) => row({ "data-to": one.to }, [one.to.replace(/\.svc\.[^:]+/, ""), percent(one.wanted),
      span(strays(one, all) ? "bad" : "", percent(one.seen)), String(one.requests), String(one.errors)]));
    return element("div", { class: "split" },
      element("p", {}, `${split.rule}${split.matches.length ? `: ${split.matches.join(" or ")}` : ""}`),
      table(["To", "Wanted", "Seen", "Requests", "Failed"], rows));
  });
}

export function circuitsOf(service) {
  return (service?.circuits ?? []).map((circuit) => {
    const said = [
      ...circuit.ejected.map((one) => span("bad", `${one.pod ?? one.endpoint} is ejected: ${one.why ?? "errors"}` +
        `${one.returnsInSeconds === null ? "" : `; back in ${one.returnsInSeconds} s`}`)),
      ...circuit.bounds.map((bound) => span(bound.full ? "bad" : "", `${bound.name}: ${bound.used} of ${bound.most}` +
        `${bound.overflows ? `, ${bound.overflows} refused so far` : ""}`)),
      circuit.ejections && !circuit.ejected.length ? `ejected ${circuit.ejections} times so far; none is now` : null,
      circuit.refused ? span("bad", circuit.refused) : null,
    ].filter((part) => part);
    return element("div", { class: "circuit" }, element("p", {}, `${circuit.cluster}, ${circuit.endpoints} endpoints`), list(said, (part) => part));
  });
}

// In a few words, what is open of a Service's circuits; nothing where all are closed.
export function openOf(service) {
  const open = (service?.circuits ?? []).filter((circuit) => circuit.open);
  const ejected = new Set(open.flatMap((circuit) => circuit.ejected).map((one) => one.pod ?? one.endpoint)).size;
  const full = open.flatMap((circuit) => circuit.bounds).filter((bound) => bound.full).length;
  return [ejected ? `${ejected} ejected` : "", full ? `${full} limits met` : ""].filter(Boolean).join(", ");
}

function state(service) {
  const open = openOf(service);
  if (open) return span("bad", open);
  return service.circuits.length ? span("good", "closed") : "-";
}

function rates(service) {
  const told = service.rates;
  if (!told) return row({ "data-service": service.name }, [service.name, ...Array(7).fill("-"), state(service)]);
  return row({ "data-service": service.name }, [service.name, told.requestsPerSecond.toFixed(1),
    span(told.errorRatio > 0 ? "bad" : "", share(told.errorRatio)), known(told.p50Milliseconds, milliseconds),
    known(told.p99Milliseconds, milliseconds), told.connectionsPerSecond.toFixed(1), String(told.openConnections),
    share(told.mutualTlsRatio), state(service)]);
}

export function servicesView(services, namespace, words) {
  const wanted = services.filter((service) => (!namespace || service.name.endsWith(`.${namespace}`)) && service.name.toLowerCase().includes(words));
  if (wanted.length === 0) return [element("p", { class: "soft" }, "Nothing is known of any Service yet.")];
  const order = [...wanted].sort((one, other) => (other.rates?.requestsPerSecond ?? 0) - (one.rates?.requestsPerSecond ?? 0) || (one.name < other.name ? -1 : 1));
  const more = order.filter((service) => service.splits.length || service.circuits.length);
  return [
    element("article", { class: "card" }, table(HEADINGS, order.map(rates))),
    ...more.map((service) => element("article", { class: "card", "data-of": service.name }, element("h2", {}, service.name),
      service.splits.length ? element("h3", {}, "Shares wanted and seen") : null, ...splitsOf(service),
      service.circuits.length ? element("h3", {}, "Circuits") : null, ...circuitsOf(service))),
  ];
}
