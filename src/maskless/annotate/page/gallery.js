// Example cells of the selection, in the tissue's colours; click goes to the tissue.
import { post, toast } from "./api.js";
import { channels, composite, lights } from "./channels.js";
import { button } from "./dom.js";
import { chosen, emit, model, on } from "./model.js";
import { goTo } from "./tissue.js";

const LEAST = 58;
const GAP = 3;
const VIEW_UM = 32;

let canvas, empty;
let kind = "typical";
let seed = 0;
let shown = null; // {rows, bytes, count, channels, edge}

export function startGallery() {
  canvas = document.getElementById("gallery");
  empty = document.getElementById("gallery-empty");
  const tools = document.getElementById("gallery-kinds");
  for (const name of ["typical", "borderline", "random"]) {
    const made = button(name, () => setKind(name), { typical: "1", borderline: "2", random: "3" }[name]);
    made.dataset.kind = name;
    tools.append(made);
  }
  tools.append(button("others", nextExamples, "G: draw other cells"));
  const wide = button("⤢", () => {});
  wide.className = "wide";
  wide.setAttribute("aria-label", "enlarge gallery");
  tools.append(wide);
  on("selection", () => ((seed = 0), fetchSoon()));
  on("codes", fetchSoon);
  on("channels", () => (sameChannels() ? draw() : fetchSoon()));
  on("focus", draw);
  canvas.addEventListener("click", (event) => {
    const row = rowAt(event.offsetX, event.offsetY);
    if (row >= 0) {
      goTo(row);
      emit("cell");
    }
  });
  new ResizeObserver(() => (count() !== shown?.asked ? fetchSoon() : draw())).observe(canvas.parentElement);
  setKind("typical");
}

export function setKind(name) {
  kind = name;
  for (const made of document.querySelectorAll("#gallery-kinds button[data-kind]")) {
    made.setAttribute("aria-pressed", made.dataset.kind === name);
  }
  fetchSoon();
}

export function nextExamples() {
  seed += 1;
  fetchSoon();
}

const sameChannels = () => shown && JSON.stringify(shown.channels) === JSON.stringify(channels.map((c) => c.number));

const perRow = () => Math.max(1, Math.floor((canvas.parentElement.clientWidth - GAP) / (LEAST + GAP)));
// Squares fill the width.
const pitch = () => (canvas.parentElement.clientWidth - GAP) / perRow();
const count = () => Math.min(96, perRow() * Math.max(1, Math.floor((canvas.parentElement.clientHeight - GAP) / pitch())));

let timer = 0;
function fetchSoon() {
  clearTimeout(timer);
  timer = setTimeout(fetchNow, 60);
}

let control = null;
async function fetchNow() {
  control?.abort();
  control = new AbortController();
  const { signal } = control;
  if (!model.selection.count) {
    shown = null;
    draw();
    return;
  }
  if (!shown) draw();
  const numbers = channels.map((channel) => channel.number);
  const asked = count();
  try {
    const response = await post("/api/gallery", {
      chosen: chosen(), kind, channels: numbers, count: asked, view_um: VIEW_UM, seed,
    }, signal);
    const [n, m, edge] = JSON.parse(response.headers.get("x-shape"));
    const buffer = await response.arrayBuffer();
    shown = {
      rows: new Uint32Array(buffer.slice(0, 4 * n)), bytes: new Uint8Array(buffer, 4 * n),
      count: n, markers: m, edge, channels: numbers, asked,
    };
    draw();
  } catch (error) {
    if (error.name !== "AbortError") toast(error.message);
  }
}

function draw() {
  const box = canvas.parentElement;
  if (box.clientWidth < LEAST) return; // another view is enlarged
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round(box.clientWidth * ratio));
  canvas.height = Math.max(1, Math.round(box.clientHeight * ratio));
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  empty.textContent = shown?.count ? "" : model.selection.count ? "looking for examples …" : "Select a cluster, or draw around cells in the UMAP, to see examples.";
  if (!shown || !sameChannels()) return;
  const { edge, markers } = shown;
  const size = edge * edge;
  const small = Object.assign(document.createElement("canvas"), { width: edge, height: edge });
  const smallPen = small.getContext("2d");
  const table = lights();
  const side = pitch() - GAP;
  for (let k = 0; k < shown.count; k++) {
    const planes = Array.from({ length: markers }, (_, m) => shown.bytes.subarray((k * markers + m) * size, (k * markers + m + 1) * size));
    const pixels = new ImageData(edge, edge);
    composite(planes, size, pixels.data, table);
    smallPen.putImageData(pixels, 0, 0);
    const [x, y] = placeOf(k);
    pen.drawImage(small, x, y, side, side);
    pen.strokeStyle = "#ffffffaa";
    pen.lineWidth = 1;
    pen.beginPath();
    pen.arc(x + side / 2, y + side / 2, (side * 5) / VIEW_UM, 0, 7);
    pen.stroke();
    if (shown.rows[k] === model.focus) {
      pen.strokeStyle = "#0b63b5";
      pen.lineWidth = 3;
      pen.strokeRect(x, y, side, side);
    }
  }
}

const placeOf = (k) => [GAP + (k % perRow()) * pitch(), GAP + Math.floor(k / perRow()) * pitch()];

function rowAt(x, y) {
  for (let k = 0; k < (shown?.count ?? 0); k++) {
    const [left, top] = placeOf(k);
    if (x >= left && x < left + pitch() - GAP && y >= top && y < top + pitch() - GAP) return shown.rows[k];
  }
  return -1;
}
