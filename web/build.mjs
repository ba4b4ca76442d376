// Builds dist/ from src/: `npm ci && npm run build`. The output is committed;
// web_test.go holds it against the source.
import { build } from "esbuild";
import { mkdir, readFile, writeFile } from "node:fs/promises";

const out = process.argv[2] ?? "dist";
await mkdir(out, { recursive: true });

const options = {
  bundle: true,
  minify: true,
  target: ["chrome111", "firefox113", "safari16.4"],
  charset: "utf8",
  legalComments: "inline", // uPlot's licence goes along
  logLevel: "warning",
};
const licence = (await readFile("node_modules/uplot/LICENSE", "utf8")).trim();
await build({
  ...options,
  entryPoints: ["src/main.js"],
  outfile: `${out}/page.js`,
  format: "iife",
  banner: { js: `/*! uPlot\n${licence}\n*/` },
});
await build({ ...options, entryPoints: ["src/main.css"], outfile: `${out}/page.css` });
const page = await readFile("src/page.html", "utf8");
await writeFile(`${out}/page.html`, page.replace(/^\s*<!--.*?-->\n/gms, "").replace(/\n\s+/g, "\n"));
