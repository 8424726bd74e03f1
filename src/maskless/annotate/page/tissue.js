// One image: up to six markers as coloured lights, in tiles; cells on top; click = a cell.
import { getBytes, toast } from "./api.js";
import { channels, composite, startChannels } from "./channels.js";
import { colours } from "./colours.js";
import { emit, focusCell, model, on, toggleGroup } from "./model.js";

const MOST_KEPT = 400;
const LEAST_LIGHT = 190;

let canvas, pen, view, rowsByImage;
let centresOn = true;
let onlySelected = false;
const raw = new Map(); // key -> Uint8Array of a tile and a channel
const painted = new Map(); // key -> canvas of a coloured tile
const waiting = new Set();

export async function startTissue() {
  canvas = document.getElementById("tissue");
  pen = canvas.getContext("2d", { alpha: false });
  const select = document.getElementById("image");
  model.study.images.forEach((image, i) => select.append(new Option(image.name, i)));
  select.addEventListener("change", () => {
    model.imageShown = Number(select.value);
    emit("image");
  });
  byImage();
  await startChannels();
  fit();
  listen();
  on("image", () => ((select.value = model.imageShown), fit()));
  on("colours selection", draw);
  on("focus", showFocus);
  on("channels", () => (painted.clear(), draw()));
  new ResizeObserver(resized).observe(canvas.parentElement);
}

function byImage() {
  const counts = new Uint32Array(model.study.images.length + 1);
  for (let i = 0; i < model.n; i++) counts[model.image[i] + 1]++;
  for (let i = 1; i < counts.length; i++) counts[i] += counts[i - 1];
  const order = new Uint32Array(model.n);
  const next = counts.slice();
  for (let i = 0; i < model.n; i++) order[next[model.image[i]]++] = i;
  rowsByImage = (image) => order.subarray(counts[image], counts[image + 1]);
}

const info = () => model.study.images[model.imageShown];

const fitting = () => {
  const box = canvas.parentElement;
  return Math.min(box.clientWidth / info().columns, box.clientHeight / info().rows) || 0;
};

function fit() {
  view = { x: info().columns / 2, y: info().rows / 2, scale: fitting() || 1, fitted: fitting() };
  draw();
}

// The same part of the image in a larger or smaller view.
function resized() {
  const now = fitting();
  if (now && view.fitted) view.scale *= now / view.fitted;
  if (now) view.fitted = now;
  draw();
}

let due = false;
export function draw() {
  if (due || !view) return;
  due = true;
  requestAnimationFrame(() => {
    due = false;
    drawNow();
  });
}

function drawNow() {
  const ratio = window.devicePixelRatio || 1;
  const box = canvas.parentElement;
  if (!box.clientWidth) return; // another view is enlarged
  canvas.width = Math.max(1, Math.round(box.clientWidth * ratio));
  canvas.height = Math.max(1, Math.round(box.clientHeight * ratio));
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.fillStyle = "#000";
  pen.fillRect(0, 0, box.clientWidth, box.clientHeight);
  pen.imageSmoothingEnabled = view.scale < 3;
  if (info().pixels && channels.length) drawTiles(box);
  if (centresOn) drawCells(box);
  drawFocus();
  drawScale(box);
}

const left = (box) => box.clientWidth / 2 - view.x * view.scale;
const top = (box) => box.clientHeight / 2 - view.y * view.scale;

function drawTiles(box) {
  const ratio = window.devicePixelRatio || 1;
  const level = Math.min(Math.max(Math.floor(-Math.log2(view.scale * ratio)), 0), info().levels - 1);
  const edge = model.study.tile_px * 2 ** level;
  const [x0, y0] = [left(box), top(box)];
  for (let row = 0; row * edge < info().rows; row++) {
    for (let column = 0; column * edge < info().columns; column++) {
      const [x, y] = [x0 + column * edge * view.scale, y0 + row * edge * view.scale];
      if (x > box.clientWidth || y > box.clientHeight || x + edge * view.scale < 0 || y + edge * view.scale < 0) continue;
      const tile = tileOf(level, row, column);
      if (tile) pen.drawImage(tile, x, y, tile.width * 2 ** level * view.scale, tile.height * 2 ** level * view.scale);
    }
  }
}

function tileOf(level, row, column) {
  const image = model.imageShown;
  const key = `${image}/${level}/${row}/${column}`;
  if (painted.has(key)) return painted.get(key);
  const keys = channels.map((channel) => `${image}/${channel.number}/${level}/${row}/${column}`);
  const missing = keys.filter((tileKey) => !raw.has(tileKey));
  if (missing.length) {
    missing.forEach(fetchTile);
    return null;
  }
  const span = (size) => Math.ceil(size / 2 ** level);
  const width = Math.min(model.study.tile_px, span(info().columns) - column * model.study.tile_px);
  const planes = keys.map((tileKey) => raw.get(tileKey));
  if (planes.some((plane) => !plane.length)) return null; // could not be read; told once
  const height = planes[0].length / width;
  const made = Object.assign(document.createElement("canvas"), { width, height });
  const pixels = new ImageData(width, height);
  composite(planes, width * height, pixels.data);
  made.getContext("2d").putImageData(pixels, 0, 0);
  if (painted.size > 200) painted.clear();
  painted.set(key, made);
  return made;
}

async function fetchTile(key) {
  if (waiting.has(key)) return;
  waiting.add(key);
  try {
    raw.set(key, new Uint8Array((await getBytes(`/api/tile/${key}`)).buffer));
    for (const old of [...raw.keys()].slice(0, Math.max(0, raw.size - MOST_KEPT))) raw.delete(old);
  } catch (error) {
    toast(error.message);
    raw.set(key, new Uint8Array(0));
  }
  waiting.delete(key);
  draw();
}

function drawCells(box) {
  if (!colours.rgba) return;
  const { mask } = model.selection;
  const radius = Math.min(Math.max(1.4, (2.2 / info().um_per_pixel) * view.scale), 7);
  const [x0, y0] = [left(box), top(box)];
  const rows = rowsByImage(model.imageShown);
  for (const chosen of mask ? [0, 1] : [1]) {
    if (!chosen && onlySelected) continue;
    // One path a colour: a path a cell takes many times as long.
    const byColour = new Map();
    for (let k = 0; k < rows.length; k++) {
      const i = rows[k];
      if (mask && mask[i] !== chosen) continue;
      const x = x0 + (model.xy[2 * i] + 0.5) * view.scale;
      const y = y0 + (model.xy[2 * i + 1] + 0.5) * view.scale;
      if (x < -9 || y < -9 || x > box.clientWidth + 9 || y > box.clientHeight + 9) continue;
      const c = colours.rgba[i];
      if (!byColour.has(c)) byColour.set(c, []);
      byColour.get(c).push(x, y);
    }
    pen.globalAlpha = chosen ? 0.95 : 0.45;
    if (mask && chosen && radius <= 3.5) {
      dots([...byColour.values()].flat(), radius + 0.8);
      pen.fillStyle = "#fff";
      pen.fill();
    }
    for (const [colour, places] of byColour) {
      dots(places, chosen ? radius : radius * 0.6);
      if (radius > 3.5) {
        // Near by, rings leave the pixels to be seen.
        pen.strokeStyle = bright(colour);
        pen.lineWidth = chosen ? 2 : 1;
        pen.stroke();
      } else {
        pen.fillStyle = bright(colour);
        pen.fill();
      }
    }
  }
  pen.globalAlpha = 1;
}

// Adds discs to the path; the smallest ones are squares, nobody sees the difference.
function dots(places, radius) {
  pen.beginPath();
  for (let k = 0; k < places.length; k += 2) {
    const [x, y] = [places[k], places[k + 1]];
    if (radius < 1.6) {
      pen.rect(x - radius, y - radius, 2 * radius, 2 * radius);
    } else {
      pen.moveTo(x + radius, y);
      pen.arc(x, y, radius, 0, 6.2832);
    }
  }
}

// The same hue as in the UMAP, but dark ones are raised: here they stand on black.
const raised = new Map();
function bright(packed) {
  if (!raised.has(packed)) {
    const light = [packed & 255, (packed >> 8) & 255, (packed >> 16) & 255];
    const gain = Math.max(1, LEAST_LIGHT / Math.max(...light, 1));
    raised.set(packed, `rgb(${light.map((v) => Math.round(v * gain)).join(",")})`);
  }
  return raised.get(packed);
}

function drawFocus() {
  const row = model.focus;
  if (row < 0 || model.image[row] !== model.imageShown) return;
  const box = canvas.parentElement;
  const x = left(box) + (model.xy[2 * row] + 0.5) * view.scale;
  const y = top(box) + (model.xy[2 * row + 1] + 0.5) * view.scale;
  const radius = Math.max(9, (6 / info().um_per_pixel) * view.scale);
  for (const [colour, width] of [["#000", 4], ["#fff", 2]]) {
    pen.strokeStyle = colour;
    pen.lineWidth = width;
    pen.beginPath();
    pen.arc(x, y, radius, 0, 7);
    pen.stroke();
  }
}

function drawScale(box) {
  const um = (box.clientWidth / 4 / view.scale) * info().um_per_pixel;
  const unit = 10 ** Math.floor(Math.log10(um));
  const length = [5, 2, 1].find((step) => step * unit <= um) * unit;
  const bar = document.getElementById("scale-bar");
  bar.style.width = `${(length / info().um_per_pixel) * view.scale}px`;
  bar.textContent = `${length} µm`;
}

function showFocus() {
  const row = model.focus;
  if (row >= 0 && model.image[row] === model.imageShown) {
    const box = canvas.parentElement;
    const x = left(box) + model.xy[2 * row] * view.scale;
    const y = top(box) + model.xy[2 * row + 1] * view.scale;
    if (x < 20 || y < 20 || x > box.clientWidth - 20 || y > box.clientHeight - 20) {
      [view.x, view.y] = [model.xy[2 * row], model.xy[2 * row + 1]];
    }
  }
  draw();
}

function cellAt(px, py) {
  const box = canvas.parentElement;
  const x = (px - left(box)) / view.scale - 0.5;
  const y = (py - top(box)) / view.scale - 0.5;
  let best = (12 / view.scale) ** 2;
  let found = -1;
  for (const i of rowsByImage(model.imageShown)) {
    const d = (model.xy[2 * i] - x) ** 2 + (model.xy[2 * i + 1] - y) ** 2;
    if (d < best) [best, found] = [d, i];
  }
  return found;
}

function listen() {
  let from = null;
  let moved = false;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    from = [event.offsetX, event.offsetY];
    moved = false;
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!from) return;
    if (Math.hypot(event.offsetX - from[0], event.offsetY - from[1]) > 2) moved = true;
    if (!moved) return;
    view.x -= (event.offsetX - from[0]) / view.scale;
    view.y -= (event.offsetY - from[1]) / view.scale;
    from = [event.offsetX, event.offsetY];
    draw();
  });
  canvas.addEventListener("pointerup", (event) => {
    if (from && !moved) {
      const row = cellAt(event.offsetX, event.offsetY);
      if (row >= 0) {
        if (event.ctrlKey || event.metaKey) toggleGroup(model.labels.groups[model.codes[row]].id, true);
        focusCell(row);
        emit("cell");
      }
    }
    from = null;
  });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const box = canvas.parentElement;
    const x = (event.offsetX - left(box)) / view.scale;
    const y = (event.offsetY - top(box)) / view.scale;
    view.scale = Math.min(Math.max(view.scale * Math.exp(-event.deltaY * 0.0015), 0.01), 40);
    view.x = x - (event.offsetX - box.clientWidth / 2) / view.scale;
    view.y = y - (event.offsetY - box.clientHeight / 2) / view.scale;
    draw();
  }, { passive: false });
  const toggle = (id, set) => document.getElementById(id).addEventListener("click", (event) => {
    event.currentTarget.setAttribute("aria-pressed", set());
    draw();
  });
  toggle("centres", () => (centresOn = !centresOn));
  toggle("only", () => (onlySelected = !onlySelected));
  document.getElementById("tissue-fit").addEventListener("click", fit);
}

export function goTo(row) {
  focusCell(row, true);
  [view.x, view.y] = [model.xy[2 * row], model.xy[2 * row + 1]];
  view.scale = Math.max(view.scale, 3 * info().um_per_pixel);
  draw();
}

export function stepImage(by) {
  const count = model.study.images.length;
  model.imageShown = (model.imageShown + by + count) % count;
  emit("image");
}

window.tissueTest = {
  place: (row) => {
    const box = canvas.parentElement;
    return [left(box) + (model.xy[2 * row] + 0.5) * view.scale, top(box) + (model.xy[2 * row + 1] + 0.5) * view.scale];
  },
};
