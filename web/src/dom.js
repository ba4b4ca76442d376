// The few things that are done to the document. What does not change is left
// alone, so that focus and selection stay.

export const $ = (selector, root = document) => root.querySelector(selector);

/** el makes an element; text in children is text, never markup. */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function setAttribute(node, name, value) {
  if (value === undefined || value === null || value === false) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value === true ? "" : value);
}

/** measure shows [number, unit]. */
export function setMeasure(node, [number, unit]) {
  if (!node.firstChild) node.append(el("span"), el("small"));
  setText(node.firstChild, number);
  setText(node.lastChild, unit ? ` ${unit}` : "");
}

/**
 * each keeps the children of parent in step with items: those of the same key
 * stay, in the order of items.
 */
export function each(parent, items, key, make, update) {
  const known = (parent.known ??= new Map());
  const seen = new Set();
  let at = parent.firstChild;
  for (const item of items) {
    const k = key(item);
    let node = known.get(k);
    if (!node) known.set(k, (node = make(item)));
    seen.add(k);
    update(node, item);
    if (node === at) at = at.nextSibling;
    else parent.insertBefore(node, at);
  }
  for (const [k, node] of known) {
    if (seen.has(k)) continue;
    node.remove();
    known.delete(k);
  }
}
