// All cells as points in WebGL2: one buffer, one draw call a step; fewer points while moving, and
// the rest drawn in steps when at rest, so that no frame is long even with software rendering.
import { colours } from "./colours.js";
import { make } from "./dom.js";
import { cellsInside } from "./inside.js";
import { focusCell, groups, idText, model, on, selectCells, toggleGroup } from "./model.js";

const STEPS = [150_000, 600_000]; // points of a step at rest, from and to
const STEP_MS = 250;
const REST_MS = 220;
const FEWEST = 15_000;
const SLOW_MS = 70;
const QUICK_MS = 30;

let moving = 100_000; // points of a moving frame; follows how fast this machine draws

const VERTEX = `#version 300 es
in vec2 place; in vec4 colour; in float chosen;
uniform vec2 centre; uniform vec2 scale; uniform float size; uniform float anyChosen;
out vec4 shade;
void main() {
  float dim = anyChosen * (1.0 - chosen);
  gl_Position = vec4((place - centre) * scale, mix(0.0, -0.5, chosen) , 1.0);
  gl_PointSize = size * mix(1.0, 1.35, anyChosen * chosen);
  shade = vec4(mix(colour.rgb, vec3(0.92, 0.92, 0.94), dim * 0.93), 1.0);
}`;
const FRAGMENT = `#version 300 es
precision mediump float;
in vec4 shade; out vec4 out_colour;
void main() { out_colour = shade; }`;

const view = { x: 0, y: 0, zoom: 1, base: 1 };
let gl, canvas, over, program, uniforms, colourBuffer, chosenBuffer;
let order; // order in which cells are drawn, so that any first part of them looks like all
let lasso = null;
let lassoOn = false;
let labelsOn = true;
let drawn = 0;
let pending = 0;

export function openCanvas() {
  canvas = document.getElementById("umap-points");
  over = document.getElementById("umap-over");
  gl = canvas.getContext("webgl2", { antialias: false, preserveDrawingBuffer: true, alpha: false });
  if (!gl) {
    document.getElementById("umap-legend").textContent = "This browser has no WebGL2: the UMAP cannot be drawn.";
    return;
  }
  program = linked();
  uniforms = Object.fromEntries(
    ["centre", "scale", "size", "anyChosen"].map((name) => [name, gl.getUniformLocation(program, name)]),
  );
}

export function startUmap() {
  if (!gl) return;
  order = spread(model.n);
  const places = new Float32Array(2 * model.n);
  for (let i = 0; i < model.n; i++) {
    places[2 * i] = model.umap[2 * order[i]];
    places[2 * i + 1] = model.umap[2 * order[i] + 1];
  }
  attribute("place", places, 2, gl.FLOAT, false);
  colourBuffer = attribute("colour", new Uint8Array(4 * model.n), 4, gl.UNSIGNED_BYTE, true);
  chosenBuffer = attribute("chosen", new Uint8Array(model.n), 1, gl.UNSIGNED_BYTE, false);
  fit();
  listen();
  on("colours", () => (paint(), redraw(false)));
  on("selection", () => (mark(), redraw(false)));
  on("focus", drawOver);
  new ResizeObserver(() => redraw(false)).observe(canvas.parentElement);
}

function linked() {
  const made = gl.createProgram();
  for (const [type, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(type);
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
    gl.attachShader(made, shader);
  }
  gl.linkProgram(made);
  gl.useProgram(made);
  gl.enable(gl.DEPTH_TEST);
  gl.depthFunc(gl.LEQUAL);
  return made;
}

function attribute(name, data, size, type, normalised) {
  const buffer = gl.createBuffer();
  gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
  gl.bufferData(gl.ARRAY_BUFFER, data, gl.DYNAMIC_DRAW);
  const place = gl.getAttribLocation(program, name);
  gl.enableVertexAttribArray(place);
  gl.vertexAttribPointer(place, size, type, normalised, 0, 0);
  return buffer;
}

// Every cell once, in steps of the golden section: any first part is spread over all images.
function spread(n) {
  const shared = (a, b) => (b ? shared(b, a % b) : a);
  let stride = Math.max(1, Math.round(0.618034 * n));
  while (shared(stride, n) !== 1) stride++;
  const out = new Uint32Array(n);
  for (let i = 0, at = 0; i < n; i++, at = at + stride >= n ? at + stride - n : at + stride) out[i] = at;
  return out;
}

function paint() {
  const { rgba } = colours;
  const out = new Uint32Array(model.n);
  for (let i = 0; i < model.n; i++) out[i] = rgba[order[i]];
  gl.bindBuffer(gl.ARRAY_BUFFER, colourBuffer);
  gl.bufferSubData(gl.ARRAY_BUFFER, 0, out);
  drawLegend();
}

const MOST_ENTRIES = 14;

function drawLegend() {
  const { legend } = colours;
  const box = document.getElementById("umap-legend");
  box.replaceChildren();
  if (legend?.entries) {
    for (const [text, colour] of legend.entries.slice(0, MOST_ENTRIES)) {
      const dot = make("span", { className: "swatch" });
      dot.style.background = colour;
      box.append(make("div", { title: text }, dot, ` ${text}`));
    }
    const more = legend.entries.length - MOST_ENTRIES;
    if (more > 0) box.append(make("div", { textContent: `and ${more} more` }));
  } else if (legend) {
    box.append(`${legend.name} ${legend.low.toFixed(2)}`, make("span", { className: "ramp" }), legend.high.toFixed(2));
  }
}

function mark() {
  const { mask } = model.selection;
  const out = new Uint8Array(model.n);
  if (mask) for (let i = 0; i < model.n; i++) out[i] = mask[order[i]];
  gl.bindBuffer(gl.ARRAY_BUFFER, chosenBuffer);
  gl.bufferSubData(gl.ARRAY_BUFFER, 0, out);
}

function fit() {
  let [x0, x1, y0, y1] = [Infinity, -Infinity, Infinity, -Infinity];
  const { umap } = model;
  for (let i = 0; i < umap.length; i += 2) {
    x0 = Math.min(x0, umap[i]);
    x1 = Math.max(x1, umap[i]);
    y0 = Math.min(y0, umap[i + 1]);
    y1 = Math.max(y1, umap[i + 1]);
  }
  Object.assign(view, { x: (x0 + x1) / 2, y: (y0 + y1) / 2, zoom: 1 });
  view.extent = [Math.max(x1 - x0, 1e-6), Math.max(y1 - y0, 1e-6)];
}

// Pixels of the screen for one unit of the UMAP.
function pixelsPerUnit() {
  const box = canvas.parentElement;
  return 0.94 * view.zoom * Math.min(box.clientWidth / view.extent[0], box.clientHeight / view.extent[1]);
}

function toScreen(x, y) {
  const box = canvas.parentElement;
  const k = pixelsPerUnit();
  return [box.clientWidth / 2 + (x - view.x) * k, box.clientHeight / 2 - (y - view.y) * k];
}

function toUmap(px, py) {
  const box = canvas.parentElement;
  const k = pixelsPerUnit();
  return [view.x + (px - box.clientWidth / 2) / k, view.y - (py - box.clientHeight / 2) / k];
}

function resize(element) {
  const ratio = window.devicePixelRatio || 1;
  const width = Math.max(1, Math.round(element.parentElement.clientWidth * ratio));
  const height = Math.max(1, Math.round(element.parentElement.clientHeight * ratio));
  if (element.width !== width || element.height !== height) {
    element.width = width;
    element.height = height;
  }
  return ratio;
}

// While something moves: one frame a repaint, with as many points as keep it smooth.
let moveDue = false;
let movedAt = 0;
function redrawMoving() {
  if (moveDue) return;
  moveDue = true;
  requestAnimationFrame((now) => {
    moveDue = false;
    const took = now - movedAt;
    if (took < 500) {
      if (took > SLOW_MS) moving = Math.max(FEWEST, moving / 2);
      if (took < QUICK_MS) moving = Math.min(model.n, moving * 1.3);
    }
    movedAt = now;
    redraw(true);
  });
}

export function redraw(isMoving) {
  if (!gl || !colours.rgba) return;
  const ratio = resize(canvas);
  const k = pixelsPerUnit() * ratio;
  gl.viewport(0, 0, canvas.width, canvas.height);
  gl.clearColor(1, 1, 1, 1);
  gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
  gl.uniform2f(uniforms.centre, view.x, view.y);
  gl.uniform2f(uniforms.scale, (2 * k) / canvas.width, (2 * k) / canvas.height);
  const few = Math.min(Math.max(9 - 1.5 * Math.log10(Math.max(model.n, 10)), 1), 4);
  gl.uniform1f(uniforms.size, Math.max(1, few * ratio * Math.min(Math.sqrt(view.zoom), 3)));
  gl.uniform1f(uniforms.anyChosen, model.selection.mask ? 1 : 0);
  drawn = 0;
  cancelAnimationFrame(pending);
  step(isMoving ? moving : stepSize);
  drawOver();
  if (isMoving) {
    clearTimeout(redraw.rest);
    redraw.rest = setTimeout(() => redraw(false), REST_MS);
  } else if (drawn < model.n) {
    pending = requestAnimationFrame(more);
  }
}

let stepSize = 250_000;
let fence = null; // passed when the last step is drawn: asking for more before would only pile up
let stepAt = 0;

function step(most) {
  const count = Math.min(Math.round(most), model.n - drawn);
  gl.drawArrays(gl.POINTS, drawn, count);
  drawn += count;
  if (fence) gl.deleteSync(fence);
  fence = gl.fenceSync(gl.SYNC_GPU_COMMANDS_COMPLETE, 0);
  gl.flush();
  stepAt = performance.now();
}

function more() {
  if (gl.getSyncParameter(fence, gl.SYNC_STATUS) === gl.SIGNALED) {
    const took = performance.now() - stepAt;
    const wanted = took > STEP_MS ? stepSize / 2 : took < STEP_MS / 2 ? stepSize * 1.5 : stepSize;
    stepSize = Math.min(Math.max(wanted, STEPS[0]), STEPS[1]);
    step(stepSize);
  }
  if (drawn < model.n) pending = requestAnimationFrame(more);
}

function drawOver() {
  const ratio = resize(over);
  const pen = over.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, over.width, over.height);
  if (labelsOn && /^(group|phenotype|broad)$/.test(colours.by)) drawLabels(pen);
  if (model.focus >= 0) {
    const [x, y] = toScreen(model.umap[2 * model.focus], model.umap[2 * model.focus + 1]);
    for (const [colour, width] of [["#fff", 4], ["#000", 2]]) {
      pen.strokeStyle = colour;
      pen.lineWidth = width;
      pen.beginPath();
      pen.arc(x, y, 7, 0, 7);
      pen.stroke();
    }
  }
  if (lasso) {
    pen.beginPath();
    lasso.forEach(([x, y], i) => (i ? pen.lineTo(x, y) : pen.moveTo(x, y)));
    pen.closePath();
    pen.fillStyle = "#0b63b522";
    pen.fill();
    pen.setLineDash([4, 3]);
    pen.strokeStyle = "#0b63b5";
    pen.lineWidth = 1.5;
    pen.stroke();
    pen.setLineDash([]);
  }
}

// A label stands at the medoid-like middle of its group: the mean would fall between two islands.
let middles = null;
on("codes", () => (middles = null));

function groupMiddles() {
  if (middles) return middles;
  const seen = model.labels.groups.map(() => [[], []]);
  const stride = Math.max(1, Math.floor(model.n / 60_000));
  for (let i = 0; i < model.n; i += stride) {
    seen[model.codes[i]][0].push(model.umap[2 * i]);
    seen[model.codes[i]][1].push(model.umap[2 * i + 1]);
  }
  const median = (list) => Float32Array.from(list).sort()[list.length >> 1];
  middles = seen.map(([xs, ys]) => (xs.length ? [median(xs), median(ys)] : null));
  return middles;
}

function drawLabels(pen) {
  const field = { phenotype: "name", broad: "broad" }[colours.by];
  pen.font = "600 11px system-ui, 'DejaVu Sans', sans-serif";
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  pen.lineJoin = "round";
  const taken = [];
  const places = groupMiddles();
  for (const group of [...groups()].sort((a, b) => b.count - a.count)) {
    const at = places[model.byId.get(group.id).place];
    const text = (field ? group[field] : idText(group.id)).slice(0, 22);
    if (!at || !text || (field === undefined && group.id === "-1")) continue;
    const [x, y] = toScreen(...at);
    const half = pen.measureText(text).width / 2 + 2;
    const box = [x - half, y - 7, x + half, y + 7];
    if (taken.some((b) => box[0] < b[2] && box[2] > b[0] && box[1] < b[3] && box[3] > b[1])) continue;
    taken.push(box);
    pen.strokeStyle = "#ffffffdd";
    pen.lineWidth = 3;
    pen.strokeText(text, x, y);
    pen.fillStyle = model.selection.groups.includes(group.id) ? "#0b63b5" : "#1d1d22";
    pen.fillText(text, x, y);
  }
}

export function setLasso(wanted) {
  lassoOn = wanted;
  document.getElementById("lasso").setAttribute("aria-pressed", wanted);
  over.style.cursor = wanted ? "crosshair" : "default";
}
export const toggleLasso = () => setLasso(!lassoOn);

function nearest(px, py, within = 9) {
  const [x, y] = toUmap(px, py);
  let best = (within / pixelsPerUnit()) ** 2;
  let row = -1;
  const { umap } = model;
  for (let i = 0; i < model.n; i++) {
    const d = (umap[2 * i] - x) ** 2 + (umap[2 * i + 1] - y) ** 2;
    if (d < best) [best, row] = [d, i];
  }
  return row;
}

function listen() {
  let from = null;
  let moved = false;
  over.addEventListener("pointerdown", (event) => {
    over.setPointerCapture(event.pointerId);
    from = [event.offsetX, event.offsetY];
    moved = false;
    if (lassoOn || event.shiftKey) lasso = [from];
  });
  over.addEventListener("pointermove", (event) => {
    if (!from) return;
    const at = [event.offsetX, event.offsetY];
    if (Math.hypot(at[0] - from[0], at[1] - from[1]) > 2) moved = true;
    if (lasso) {
      lasso.push(at);
      drawOver();
    } else if (moved) {
      const k = pixelsPerUnit();
      view.x -= (at[0] - from[0]) / k;
      view.y += (at[1] - from[1]) / k;
      from = at;
      redrawMoving();
    }
  });
  over.addEventListener("pointerup", (event) => {
    if (lasso && lasso.length > 3) {
      const polygon = lasso.map((p) => toUmap(...p));
      lasso = null;
      setLasso(false);
      selectCells(cellsInside(polygon));
    } else if (!moved && from) {
      const row = nearest(event.offsetX, event.offsetY);
      if (row >= 0) {
        toggleGroup(model.labels.groups[model.codes[row]].id, event.ctrlKey || event.metaKey);
        focusCell(row, true);
      }
    }
    lasso = null;
    from = null;
    over.width = 0; // a canvas that is only cleared may be left on the screen as it was
    drawOver();
  });
  over.addEventListener("wheel", (event) => {
    event.preventDefault();
    const [x, y] = toUmap(event.offsetX, event.offsetY);
    view.zoom = Math.min(Math.max(view.zoom * Math.exp(-event.deltaY * 0.0015), 0.5), 400);
    const [x2, y2] = toUmap(event.offsetX, event.offsetY);
    view.x += x - x2;
    view.y += y - y2;
    redrawMoving();
  }, { passive: false });
  document.getElementById("lasso").addEventListener("click", toggleLasso);
  document.getElementById("umap-fit").addEventListener("click", () => (fit(), redraw(false)));
  document.getElementById("umap-labels").addEventListener("click", (event) => {
    labelsOn = !labelsOn;
    event.currentTarget.setAttribute("aria-pressed", labelsOn);
    drawOver();
  });
}

// Milliseconds to draw so many points, waited for: without the last line they would only be asked for.
function timed(points) {
  const start = performance.now();
  gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
  gl.drawArrays(gl.POINTS, 0, Math.min(Math.round(points), model.n));
  gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4));
  return performance.now() - start;
}

// For tests and for measuring.
window.umapTest = {
  points: () => Math.round(moving),
  complete: () => drawn >= model.n,
  place: (row) => toScreen(model.umap[2 * row], model.umap[2 * row + 1]),
  drawMoving: () => timed(moving),
  drawAll: () => timed(model.n),
};
