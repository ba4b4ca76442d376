// The statistics page: takes the overview as server-sent events from the path
// it was loaded from, and shows it.

import { LatencyChart, RateChart } from "./charts.js";
import { $, setAttribute, setText } from "./dom.js";
import { clock } from "./format.js";
import * as panels from "./panels.js";
import { Services } from "./services.js";

const charts = [new RateChart(), new LatencyChart()];
const services = new Services(select);
let overview = null; // the last one
let span = "2m";

function show() {
  panels.figures(overview, overview?.spans[span]);
  if (!overview) return;
  for (const chart of charts) chart.show(overview.spans[span], overview.started);
  services.show(overview);
  panels.applications(overview);
  panels.engines(overview);
  panels.topics(overview);
  panels.process(overview);
  setText($("#version"), overview.version);
  setText($("#stamp"), `Data of ${clock(new Date(overview.now))}`);
}

// The link to the sidecar.

let source = null, retry = 0, timer = 0, counting = 0, silence = 0;
const mostRetry = 15; // seconds

function connect() {
  source?.close();
  clearTimeout(timer);
  clearInterval(counting);
  const query = new URLSearchParams();
  if (services.selected) query.set("service", services.selected);
  if (overview && overview.services_in_use > overview.services.length && services.filter) query.set("filter", services.filter);
  source = new EventSource(`${location.pathname}?${query}`);
  source.onmessage = (event) => {
    overview = JSON.parse(event.data);
    retry = 0;
    link("live", "Live");
    show();
    listen();
  };
  source.onerror = lost;
  listen();
}

/** listen gives a link up that has been silent for long: a machine that slept. */
function listen() {
  clearTimeout(silence);
  silence = setTimeout(lost, 15000);
}

function lost() {
  source.close();
  clearTimeout(silence);
  clearTimeout(timer);
  clearInterval(counting);
  retry = Math.min(retry + 1 + Math.floor(retry / 2), mostRetry);
  let left = retry;
  const tell = () => link("lost", "Disconnected", left > 0 ? `, trying again in ${left} s` : ", connecting");
  tell();
  counting = setInterval(() => { left--; tell(); }, 1000);
  timer = setTimeout(connect, retry * 1000);
}

/** link tells how things are; more is what changes too often to be read aloud. */
function link(state, text, more = "") {
  setAttribute(document.body, "data-link", state);
  setText($("#link-text"), text);
  setText($("#link-more"), more);
}

// What people choose.

function select(name) {
  services.selected = name;
  $("#scope").hidden = !name;
  setText($("#scope-name"), name);
  services.show();
  connect();
}

function choose(group, value) {
  const input = $(`#${group} input[value="${value}"]`);
  if (input) input.checked = true;
}

$("#span").addEventListener("change", (e) => { span = e.target.value; show(); });
$("#scope-all").addEventListener("click", () => { select(""); $("#filter").focus(); });
$("#filter").addEventListener("input", (e) => {
  services.filter = e.target.value;
  services.show();
  if (overview && overview.services_in_use > overview.services.length) { clearTimeout(timer); timer = setTimeout(connect, 300); }
});

const dark = matchMedia("(prefers-color-scheme: dark)");
function theme(name) {
  const isDark = name === "dark" || (name === "auto" && dark.matches);
  setAttribute(document.documentElement, "data-theme", isDark ? "dark" : "light");
  for (const chart of charts) chart.redraw();
}
const remembered = () => { try { return localStorage.getItem("micro-theme") ?? "auto"; } catch { return "auto"; } };
$("#theme").addEventListener("change", (e) => {
  try { localStorage.setItem("micro-theme", e.target.value); } catch { /* it lasts as long as the page */ }
  theme(e.target.value);
});
dark.addEventListener("change", () => theme(remembered()));
choose("theme", remembered());
theme(remembered());

document.addEventListener("keydown", (e) => {
  if (e.ctrlKey || e.metaKey || e.altKey) return;
  const typing = e.target.matches("input[type=search]");
  if (e.key === "Escape") {
    if (typing && e.target.value) { e.target.value = ""; e.target.dispatchEvent(new Event("input", { bubbles: true })); }
    else if (services.selected) select("");
    else e.target.blur();
  } else if (typing) return;
  else if (e.key === "/") { e.preventDefault(); $("#filter").focus(); $("#filter").select(); }
  else if (e.key === "2" || e.key === "6") { choose("span", e.key === "2" ? "2m" : "60m"); span = e.key === "2" ? "2m" : "60m"; show(); }
});

panels.figures(null);
connect();
