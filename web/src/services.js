// The table of services and, when one is opened, of its nodes.

import { digits, duration, share } from "./format.js";
import { $, each, el, setAttribute, setMeasure, setText } from "./dom.js";

const states = {
  serving: "serving", failing: "failing", ejected: "ejected", probing: "probing",
};

/** place is where a latency stands on the strip, from 0.1 ms to 10 s, in percent. */
const place = (ms) => Math.min(Math.max((Math.log10(ms) + 1) * 20, 0), 100);

export class Services {
  /** select(name) is called when the charts shall be about one service, or "" for all. */
  constructor(select) {
    this.select = select;
    this.open = new Map(); // services that were opened or closed by hand
    this.selected = "";
    this.filter = "";
    $("#rows").addEventListener("keydown", (e) => this.key(e));
  }

  show(overview) {
    this.overview = overview ?? this.overview;
    if (!this.overview) return;
    const wanted = this.filter.trim().toLowerCase();
    const has = (text) => text.toLowerCase().includes(wanted);
    const rows = [];
    let found = 0;
    for (const service of this.overview.services) {
      const named = has(service.name);
      const nodes = named ? service.nodes : service.nodes.filter((n) => has(n.id) || has(n.address));
      if (!named && !nodes.length) continue;
      found++;
      const open = this.open.get(service.name) ?? ((wanted !== "" && !named) || this.few());
      rows.push({ key: `s ${service.name}`, service, open });
      if (open) for (const node of nodes) rows.push({ key: `n ${service.name} ${node.id}`, node, service });
    }
    each($("#rows"), rows, (r) => r.key, (r) => (r.node ? makeNode() : this.makeService(r.service.name)), (tr, r) => {
      if (r.node) updateNode(tr, r.node);
      else this.updateService(tr, r);
    });
    this.tellCount(found, wanted);
  }

  /** few: nodes are shown without being asked for while they fit. */
  few() { return this.overview.services.reduce((n, s) => n + 1 + s.nodes.length, 0) <= 24; }

  tellCount(found, wanted) {
    const all = this.overview.services_in_use;
    setText($("#services-count"), all ? (found === all ? digits(all) : `${digits(found)} of ${digits(all)}`) : "");
    const empty = $("#services-empty");
    empty.hidden = found > 0;
    setAttribute($("#services table"), "hidden", found === 0);
    if (found) return;
    if (wanted) return empty.replaceChildren(el("p", {}, `Nothing matches “${this.filter.trim()}”.`));
    if (empty.firstChild?.tagName === "H3") return;
    empty.replaceChildren(
      el("h3", {}, "No service has been called yet"),
      el("p", {}, "A service appears here when a request for it comes through this sidecar:"),
      el("pre", {}, el("code", {}, `curl -H 'Content-Type: application/json' -d '{}' ${location.origin}/greeter/say/hello`)),
    );
  }

  makeService(name) {
    const toggle = el("button", { type: "button", class: "toggle", onclick: () => this.toggle(name) }, el("span", { class: "hidden" }, `Nodes of ${name}`));
    const pick = el("button", { type: "button", class: "pick", title: "Show this service in the charts", onclick: () => this.select(this.selected === name ? "" : name) });
    for (const part of name.split(/(?<=\.)/)) pick.append(part, el("wbr")); // lines may end at dots
    const tr = el("tr", { class: "service" },
      el("th", { scope: "row", class: "name" }, el("span", { class: "label" }, toggle, pick)), el("td", { class: "state" }), ...cells());
    tr.dataset.service = name;
    return tr;
  }

  updateService(tr, { service, open }) {
    const [toggle, pick] = tr.querySelectorAll("button");
    setAttribute(toggle, "aria-expanded", String(open));
    setAttribute(pick, "aria-pressed", String(service.name === this.selected));
    setAttribute(tr, "data-selected", service.name === this.selected);
    const bad = service.nodes.filter((n) => n.state !== "serving").length;
    const state = tr.querySelector(".state");
    const n = service.nodes.length;
    const text = n === 0 ? "no node" : bad ? `${n - bad} of ${n} nodes` : n === 1 ? "1 node" : `${n} nodes`;
    setText(state, text);
    setAttribute(state, "data-state", n === 0 || bad === n ? "ejected" : bad ? "failing" : "fine");
    updateCells(tr, service);
  }

  toggle(name) {
    const button = [...$("#rows").children].find((tr) => tr.dataset.service === name)?.querySelector(".toggle");
    this.open.set(name, button?.getAttribute("aria-expanded") !== "true");
    this.show();
  }

  /** key moves between services, and opens and closes them, as in a tree. */
  key(e) {
    const tr = e.target.closest("tr.service");
    if (!tr) return;
    const all = [...$("#rows").querySelectorAll("tr.service")];
    const to = { ArrowDown: 1, ArrowUp: -1 }[e.key];
    const expanded = tr.querySelector(".toggle").getAttribute("aria-expanded") === "true";
    if (to) (all[all.indexOf(tr) + to]?.querySelector(`.${e.target.className}`) ?? e.target).focus();
    else if ((e.key === "ArrowRight" && !expanded) || (e.key === "ArrowLeft" && expanded)) this.toggle(tr.dataset.service);
    else return;
    e.preventDefault();
  }
}

/** cells are what services and nodes have in common. */
function cells() {
  const strip = el("td", { class: "range" }, el("span", { class: "strip", "aria-hidden": "true" }, el("i", { class: "bar" }), el("i", { class: "tick" })));
  return [el("td", { class: "n rate" }), strip, ...["p50", "p95", "p99", "errors", "flight"].map((c) => el("td", { class: `n ${c}` }))];
}

function updateCells(tr, t) {
  const cell = (name) => tr.querySelector(`.${name}`);
  setText(cell("rate"), digits(t.rate));
  setAttribute(cell("rate"), "data-zero", t.rate === 0);
  for (const q of ["p50", "p95", "p99"]) setMeasure(cell(q), duration(t.latency[q]));
  const why = Object.entries(t.errors ?? {}).map(([reason, n]) => `${reason.replace("_", " ")} ${digits(n)}`).join(", ");
  setMeasure(cell("errors"), t.failures ? share(t.failures, t.requests) : [t.requests ? "0" : "–", ""]);
  setAttribute(cell("errors"), "data-bad", t.failures > 0);
  setAttribute(cell("errors"), "title", why ? `Since the start: ${why}` : undefined);
  setText(cell("flight"), digits(t.in_flight + t.open));
  setAttribute(cell("flight"), "data-zero", t.in_flight + t.open === 0);
  const strip = cell("strip");
  setAttribute(strip, "data-none", !t.latency.p50);
  if (!t.latency.p50) return;
  const from = place(t.latency.p50), to = place(t.latency.p99);
  strip.style.setProperty("--from", `${from.toFixed(1)}%`);
  strip.style.setProperty("--to", `${Math.max(to, from + 1.5).toFixed(1)}%`);
  strip.style.setProperty("--mid", `${place(t.latency.p95).toFixed(1)}%`);
}

function makeNode() {
  return el("tr", { class: "node" },
    el("th", { scope: "row", class: "name" }, el("span", { class: "label" }, el("b"), el("small", {}, el("em"), el("span")))),
    el("td", { class: "state" }, el("span", { class: "badge" })), ...cells());
}

function updateNode(tr, n) {
  setText(tr.querySelector("b"), n.address);
  const [where, about] = tr.querySelector(".label small").children;
  setText(about, [n.id, n.version && `v${n.version}`.replace("vv", "v"), n.protocol].filter(Boolean).join(" · "));
  const badge = tr.querySelector(".badge");
  let text = states[n.state] ?? n.state;
  if (n.until) {
    const left = Math.ceil((new Date(n.until) - Date.now()) / 1000);
    if (left > 0) text += ` ${left} s`;
  }
  setText(badge, text);
  setText(where, n.state === "serving" ? "" : `${text} `); // where there is no room for the column
  setAttribute(badge, "data-state", n.state);
  setAttribute(badge, "title", n.reason);
  updateCells(tr, n);
}

