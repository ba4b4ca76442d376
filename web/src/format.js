// Numbers for people: three significant digits, the unit apart.

const nothing = ["–", ""];

/** digits writes v with three significant digits and no more than needed. */
export function digits(v) {
  if (v === 0) return "0";
  if (v >= 10000) return Math.round(v).toLocaleString("en").replaceAll(",", "\u2009");
  if (v >= 100) return String(Math.round(v));
  if (v >= 10) return v.toFixed(1).replace(/\.0$/, "");
  return v >= 0.095 ? v.toFixed(2).replace(/0$/, "").replace(/\.0$/, "") : v < 0.005 ? "<0.01" : v.toFixed(2);
}

/** rate is [number, unit] of a number a second. */
export const rate = (v) => (v >= 100000 ? [digits(v / 1000), "k/s"] : [digits(v), "/s"]);

/** duration is [number, unit] of milliseconds; nothing was measured when it is 0. */
export function duration(ms) {
  if (!ms) return nothing;
  if (ms < 1) return [digits(ms * 1000 >= 1000 ? 999 : Math.round(ms * 1000)), "µs"];
  if (ms < 1000) return [digits(ms), "ms"];
  return [digits(ms / 1000), "s"];
}

/** bytes is [number, unit]. */
export function bytes(n) {
  if (!n) return nothing;
  const mib = n / 2 ** 20;
  return mib < 1024 ? [digits(mib), "MiB"] : [digits(mib / 1024), "GiB"];
}

/** share is a part of a whole in percent, [number, unit]. */
export function share(part, whole) {
  if (!whole) return nothing;
  const percent = (100 * part) / whole;
  return [percent > 0 && percent < 0.01 ? "<0.01" : digits(percent), "%"];
}

/** since writes seconds like 3 d 4 h. */
export function since(seconds) {
  const d = Math.floor(seconds / 86400), h = Math.floor((seconds % 86400) / 3600);
  const m = Math.floor((seconds % 3600) / 60), s = Math.floor(seconds % 60);
  if (d) return `${d} d ${h} h`;
  if (h) return `${h} h ${m} min`;
  return m ? `${m} min ${s} s` : `${s} s`;
}

/** clock writes a time of day. */
export const clock = (date) => date.toLocaleTimeString("en-GB");

export const together = ([number, unit]) => (unit ? `${number}\u202f${unit}` : number);
