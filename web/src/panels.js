// What stands beside the services: figures, application, engines, topics,
// process.

import { bytes, clock, digits, duration, rate, share, since } from "./format.js";
import { $, each, el, setAttribute, setMeasure, setText } from "./dom.js";

const figureList = [
  ["rate", "Requests"], ["failed", "Failed"], ["p50", "p50"], ["p95", "p95"], ["p99", "p99"],
  ["flight", "In flight"], ["memory", "Memory"], ["uptime", "Uptime"],
];

/** figures shows the key figures; without an overview their places. */
export function figures(o, span) {
  const values = {};
  if (o) {
    const selected = o.selected && o.services.find((s) => s.name === o.selected);
    values.rate = rate(selected ? selected.rate : o.requests.rate);
    values.failed = span.failures ? share(span.failures, span.requests) : span.requests ? ["0", "%"] : ["–", ""];
    for (const q of ["p50", "p95", "p99"]) values[q] = duration(span.latency[q]);
    values.flight = [digits(selected ? selected.in_flight + selected.open : o.requests.in_flight), ""];
    values.memory = bytes(o.process.resident_bytes || o.process.heap_bytes);
    values.uptime = [since(o.process.uptime_seconds), ""];
  }
  each($("#figures"), figureList, ([id]) => id,
    ([id, label]) => el("div", { class: `figure ${id}` }, el("dt", {}, label), el("dd")),
    (node, [id]) => {
      setMeasure(node.lastChild, values[id] ?? ["–", ""]);
      setAttribute(node, "data-bad", id === "failed" && o && span.failures > 0);
    });
}

const body = (id) => $(`#${id} .body`);

/** none tells that there is nothing, and what would change that. */
function none(root, nothing, text) {
  let note = root.querySelector(":scope > .note");
  if (!nothing) return note?.remove();
  if (!note) root.append((note = el("p", { class: "note" })));
  setText(note, text);
}

function list(root) {
  return root.querySelector(":scope > ul") ?? root.appendChild(el("ul", { class: "list" }));
}

export function applications(o) {
  const root = body("applications"), all = o.applications ?? [];
  none(root, !all.length, "None: this sidecar registers no application. It does with --server_name and --server_address.");
  setText($("#applications h2"), all.length > 1 ? "Applications" : "Application");
  each(list(root), all, (a) => `${a.name} ${a.node}`,
    () => el("li", { class: "application" },
      el("p", { class: "row" }, el("b"), el("span", { class: "badge" })),
      el("p", { class: "about" }), el("ol", { class: "probes" }), el("p", { class: "last" })),
    (li, a) => {
      const [row, about, probes, last] = li.children;
      setText(row.firstChild, a.name);
      const state = !a.checked ? ["fine", a.registered ? "registered" : "not registered"] : a.healthy ? ["serving", "healthy"] : ["ejected", "not healthy"];
      setAttribute(row.lastChild, "data-state", state[0]);
      setText(row.lastChild, state[1]);
      setText(about, [a.address, a.checked ? (a.registered ? "registered" : "not registered") : "no health check"].filter(Boolean).join(" · "));
      each(probes, a.probes ?? [], (p) => p.at, () => el("li"), (tick, p) => {
        setAttribute(tick, "data-ok", String(!p.error));
        setAttribute(tick, "title", `${clock(new Date(p.at))} ${p.error || `${p.status || "passed"} in ${duration(p.took_ms).join(" ")}`}`);
        setAttribute(tick, "aria-label", tick.title);
      });
      const p = (a.probes ?? []).at(-1);
      setText(last, !p ? (a.checked ? "Not probed yet" : "") : p.error ? `${clock(new Date(p.at))} ${p.error}` : `Last probe ${clock(new Date(p.at))}, ${duration(p.took_ms).join(" ")}`);
      setAttribute(last, "data-bad", Boolean(p?.error));
    });
}

export function engines(o) {
  const root = body("engines"), all = o.engines ?? [];
  none(root, !all.length, "Not asked yet.");
  each(list(root), all, (e) => e.kind,
    () => el("li", {}, el("p", { class: "row" }, el("span", { class: "kind" }), el("b"), el("span", { class: "badge" })), el("p", { class: "last", "data-bad": true })),
    (li, e) => {
      const [kind, name, badge] = li.firstChild.children;
      setText(kind, e.kind);
      setText(name, e.name);
      setText(badge, e.up ? "up" : "down");
      setAttribute(badge, "data-state", e.up ? "serving" : "ejected");
      setText(li.lastChild, e.error ?? "");
    });
}

export function topics(o) {
  const root = body("topics"), all = o.topics ?? [];
  setText($("#topics-count"), all.length ? digits(all.length) : "");
  none(root, !all.length, "No message has passed yet. Messages are published with POST /broker?topic=NAME.");
  let table = root.querySelector("table");
  if (!table) {
    table = el("table", {}, el("thead", {}, el("tr", {}, ...[["Topic", ""], ["In/s", "Published a second"], ["Out/s", "Delivered a second"], ["Total", "Published since the start"]]
      .map(([text, title], i) => el("th", { scope: "col", class: i ? "n" : "", title: title || undefined }, text)))), el("tbody"));
    root.append(table);
  }
  table.hidden = !all.length;
  const shown = all.toSorted((a, b) => b.published_rate + b.delivered_rate - a.published_rate - a.delivered_rate || a.name.localeCompare(b.name)).slice(0, 50);
  each(table.tBodies[0], shown, (t) => t.name,
    () => el("tr", {}, el("th", { scope: "row" }), el("td", { class: "n" }), el("td", { class: "n" }), el("td", { class: "n" })),
    (tr, t) => [t.name, digits(t.published_rate), digits(t.delivered_rate), digits(t.published)].forEach((text, i) => {
      setText(tr.children[i], text);
      if (i === 1 || i === 2) setAttribute(tr.children[i], "data-zero", text === "0");
    }));
  const m = o.messages;
  let sum = root.querySelector(".sum");
  if (!sum) root.append((sum = el("p", { class: "last sum" })));
  setText(sum, all.length || m.subscribers ? `${digits(m.subscribers)} subscriber${m.subscribers === 1 ? "" : "s"}${m.cut ? ` · ${digits(m.cut)} cut for being slow` : ""}` : "");
}

export function process(o) {
  const p = o.process;
  const pairs = [
    ["Version", o.version], ["Started", new Date(o.started * 1000).toLocaleString("en-GB")], ["Uptime", since(p.uptime_seconds)],
    ["Resident memory", bytes(p.resident_bytes).join(" ")], ["Heap in use", bytes(p.heap_bytes).join(" ")],
    ["Goroutines", digits(p.goroutines)], ["Collections", digits(p.gc_count)],
    ["Pauses in all", duration(p.gc_pause_ms).join(" ")], ["Last pause", duration(p.gc_last_pause_ms).join(" ")],
    ["CPU time of GC", `${digits(p.gc_cpu_percent)} %`], ["Processors", digits(p.processors)], ["Process", String(p.pid)], ["Runtime", p.go_version],
  ];
  each($("#process dl"), pairs, ([name]) => name, ([name]) => el("div", {}, el("dt", {}, name), el("dd")), (node, [, value]) => setText(node.lastChild, value));
}
