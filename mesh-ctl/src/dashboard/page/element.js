// Elements. Names come from manifests and peers: they are only ever text.

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export const span = (kind, text) => element("span", kind ? { class: kind } : {}, text);
export const list = (items, make) => element("ul", {}, ...items.map((item) => element("li", {}, make(item))));
export const pairs = (all) => element("dl", {}, ...all.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
