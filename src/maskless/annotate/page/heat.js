// Groups by markers: a heat map or bubbles with trees, names, counts or shares; rows by hand.
import { getJson } from "./api.js";
import { groupColour, nameColours, ramp } from "./colours.js";
import { number } from "./dom.js";
import { column, columnNames, emit, idText, model, on, phenotypeOf, remember, selectGroups, toggleGroup } from "./model.js";

const DIVERGING = ["#2d5fa8", "#8fb4dc", "#f4f4f6", "#eda57a", "#b5460a"];
const SEQUENTIAL = ["#f4f4f6", "#a9cbe0", "#5f9bd0", "#4457b0", "#3a1a6e"];
const LABELS = [72, 118]; // pixels for names, from and to
const TREE = 26;
const BARS = 70;

let canvas, tip, table, layout, drag;
let label = LABELS[1];
let shares = null;
const options = { values: "z", by: "group", bars: "cells" };

export function startHeat() {
  canvas = document.getElementById("heat");
  tip = document.getElementById("tip");
  const barSelect = document.getElementById("heat-bars");
  barSelect.append(new Option("cells", "cells"));
  for (const name of ["image", ...Object.keys(model.study.columns)]) barSelect.append(new Option(`% per ${name}`, name));
  Object.assign(options, model.settings.heat ?? {});
  if (![...barSelect.options].some((option) => option.value === options.bars)) options.bars = "cells";
  for (const key of ["values", "by", "bars"]) {
    const select = document.getElementById(`heat-${key}`);
    select.value = options[key];
    select.addEventListener("change", async () => {
      options[key] = select.value;
      remember("heat", { ...options });
      if (key === "by") return reload();
      if (key === "bars") await countShares();
      return draw();
    });
  }
  on("codes", reload);
  on("labels", () => (options.by === "phenotype" ? reload() : draw()));
  on("selection order", draw);
  new ResizeObserver(draw).observe(canvas.parentElement);
  listen();
  return reload();
}

let asked = 0;
let early = null;

// The first table takes the server longest: it is asked for before the page has its cells.
export function askEarly(who) {
  early = getJson(`/api/table/group?who=${encodeURIComponent(who)}`);
  early.catch(() => (early = null)); // asked for again, and told, when it is needed
}

async function reload() {
  const mine = ++asked;
  const who = encodeURIComponent(model.who);
  const first = early;
  early = null;
  const [groups, shown] = await Promise.all([
    first ?? getJson(`/api/table/group?who=${who}`),
    options.by === "group" ? null : getJson(`/api/table/${options.by}?who=${who}`),
  ]);
  if (mine !== asked) return;
  model.table = groups;
  table = shown ?? groups;
  await countShares();
  emit("table", "order");
}

// Rows in the order that the person chose; new groups come last.
export function rowOrder(of = model.table) {
  if (!of) return [];
  const sort = document.getElementById("table-sort").value;
  const rows = [...of.rows];
  const name = (i) => model.byId.get(of.ids[i])?.name || of.ids[i];
  if (sort === "size") rows.sort((a, b) => of.counts[b] - of.counts[a]);
  if (sort === "name") rows.sort((a, b) => name(a).localeCompare(name(b), "en", { numeric: true }));
  if (sort === "id") rows.sort((a, b) => of.ids[a].localeCompare(of.ids[b], "en", { numeric: true }));
  if (sort === "hand") {
    const place = new Map((model.settings.order ?? []).map((id, i) => [id, i]));
    rows.sort((a, b) => (place.get(of.ids[a]) ?? 1e6) - (place.get(of.ids[b]) ?? 1e6));
  }
  return rows;
}

async function countShares() {
  shares = null;
  const { bars } = options;
  const of = table;
  if (bars === "cells" || !of) return;
  const codes = await column(bars);
  if (bars !== options.bars || of !== table) return; // counted by whoever changed it
  const width = columnNames(bars).length;
  const place = new Map(table.ids.map((id, i) => [id, i]));
  const named = options.by === "phenotype";
  const rowOf = model.labels.groups.map((g) => place.get(named ? g.name || "unnamed" : g.id) ?? -1);
  shares = table.ids.map(() => new Float64Array(width));
  const byImage = named && model.labels.groups.some((group) => Object.keys(group.by_image).length);
  for (let i = 0; i < model.n; i++) {
    const row = byImage ? place.get(phenotypeOf(i)) : rowOf[model.codes[i]];
    if (row >= 0) shares[row][codes[i]]++;
  }
}

const rowName = (id) => {
  if (options.by === "phenotype") return id;
  const group = model.byId.get(id);
  return group?.name ? `${group.name} · ${idText(id)}` : idText(id);
};

function draw() {
  if (!table) return;
  const box = canvas.parentElement;
  const ratio = window.devicePixelRatio || 1;
  const rows = rowOrder(table);
  const sorted = document.getElementById("table-sort").value === "tree";
  const columns = table.columns;
  const pen = canvas.getContext("2d");
  const longest = Math.max(...table.markers.map((m) => Math.min(m.length, 12)));
  const top = 8 + longest * 5.6 + TREE * 0.7;
  pen.font = '11px system-ui, "DejaVu Sans", sans-serif';
  const widest = Math.max(...rows.map((row) => pen.measureText(rowName(table.ids[row]).slice(0, 40)).width));
  label = Math.min(Math.max(widest + 20, LABELS[0]), LABELS[1]);
  const left = label + (sorted ? TREE : 4);
  const width = box.clientWidth;
  const cellWidth = Math.max(7, (width - left - BARS - 8) / columns.length);
  const cellHeight = Math.min(20, Math.max(9.5, (box.clientHeight - top - 6) / rows.length));
  const height = Math.max(top + rows.length * cellHeight + 6, 40);
  const full = Math.max(width - 1, left + columns.length * cellWidth + BARS + 8);
  canvas.width = Math.round(full * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.width = `${full}px`;
  canvas.style.height = `${height}px`;
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, full, height);
  layout = { top, left, cellWidth, cellHeight, rows, columns };
  drawCells(pen);
  drawNames(pen);
  drawBars(pen, left + columns.length * cellWidth + 5);
  drawLegend(pen);
  pen.strokeStyle = "#9a9aa6";
  pen.lineWidth = 1;
  if (sorted) drawTree(pen, table.row_tree, (at, high) => [label + TREE - 4 - high * (TREE - 6), top + (at + 0.5) * cellHeight]);
  drawTree(pen, table.column_tree, (at, high) => [left + (at + 0.5) * cellWidth, TREE * 0.7 - high * (TREE * 0.7 - 3)]);
}

function shade(value) {
  if (options.values === "z") return ramp(value / 4 + 0.5, DIVERGING);
  if (options.values === "raw") return ramp(value / Math.max(rawTop(), 1e-9), SEQUENTIAL);
  return ramp(value, SEQUENTIAL);
}
const rawTop = () => Math.max(...table.raw.flat());

function drawCells(pen) {
  const { top, left, cellWidth, cellHeight, rows, columns } = layout;
  const bubbles = options.values === "bubble";
  const values = table[bubbles ? "0-1" : options.values];
  rows.forEach((row, r) => {
    columns.forEach((m, c) => {
      const [red, green, blue] = shade(values[row][m]);
      pen.fillStyle = `rgb(${red},${green},${blue})`;
      const [x, y] = [left + c * cellWidth, top + r * cellHeight];
      if (bubbles) {
        const most = Math.min(cellWidth, cellHeight) / 2 - 0.5;
        pen.beginPath();
        pen.arc(x + cellWidth / 2, y + cellHeight / 2, Math.max(0.4, most * Math.sqrt(table.positive[row][m])), 0, 7);
        pen.fill();
        pen.strokeStyle = "#66666688";
        pen.lineWidth = 0.5;
        pen.stroke();
      } else {
        pen.fillRect(x, y, cellWidth - 0.6, cellHeight - 0.6);
      }
    });
  });
}

// What colours and sizes mean, in the free corner above the names.
function drawLegend(pen) {
  const { values } = options;
  const [x, y, width] = [8, 8, 84];
  for (let i = 0; i < width; i++) {
    const [red, green, blue] = ramp(i / (width - 1), values === "z" ? DIVERGING : SEQUENTIAL);
    pen.fillStyle = `rgb(${red},${green},${blue})`;
    pen.fillRect(x + i, y, 1.2, 7);
  }
  const ends = { z: ["−2", "z", "2"], raw: ["0", "mean", rawTop().toFixed(2)], "0-1": ["0", "0-1", "1"], bubble: ["0", "mean", "1"] }[values];
  pen.fillStyle = "#6b6b76";
  pen.font = "9px system-ui, 'DejaVu Sans', sans-serif";
  pen.textBaseline = "top";
  for (const [text, at, align] of [[ends[0], x, "left"], [ends[1], x + width / 2, "center"], [ends[2], x + width, "right"]]) {
    pen.textAlign = align;
    pen.fillText(text, at, y + 10);
  }
  pen.textAlign = "left";
  if (values === "bubble") pen.fillText("size: share of positive cells", x, y + 24);
}

function drawNames(pen) {
  const { top, left, cellWidth, cellHeight, rows, columns } = layout;
  pen.textBaseline = "middle";
  const named = options.by === "phenotype" ? nameColours() : null;
  const size = Math.min(11, Math.max(8.5, cellHeight));
  rows.forEach((row, r) => {
    const id = table.ids[row];
    const y = top + (r + 0.5) * cellHeight;
    const selected = isSelected(id);
    if (selected) {
      pen.fillStyle = "#dbeafa";
      pen.fillRect(0, y - cellHeight / 2, label, cellHeight);
      pen.strokeStyle = "#0b63b5";
      pen.lineWidth = 1.5;
      pen.strokeRect(left - 0.5, y - cellHeight / 2, columns.length * cellWidth, cellHeight - 0.5);
    }
    pen.fillStyle = named ? (named.get(id) ?? "#d2d2d6") : groupColour(model.byId.get(id) ?? { id, place: row });
    pen.fillRect(label - 9, y - cellHeight / 2 + 1, 7, cellHeight - 2);
    pen.fillStyle = "#1d1d22";
    pen.font = `${selected ? "600 " : ""}${size}px system-ui, "DejaVu Sans", sans-serif`;
    pen.textAlign = "right";
    pen.fillText(clipped(pen, rowName(id), label - 14), label - 12, y + 0.5);
  });
  pen.font = `${Math.min(10, cellWidth + 1)}px system-ui, "DejaVu Sans", sans-serif`;
  pen.textAlign = "left";
  columns.forEach((m, c) => {
    pen.save();
    pen.translate(left + (c + 0.5) * cellWidth, top - 3);
    pen.rotate(-Math.PI / 2);
    pen.fillText(table.markers[m].slice(0, 12), 0, 0);
    pen.restore();
  });
}

function clipped(pen, text, width) {
  if (pen.measureText(text).width <= width) return text;
  let cut = text.slice(0, 40);
  while (cut.length > 1 && pen.measureText(`${cut}…`).width > width) cut = cut.slice(0, -1);
  return `${cut}…`;
}

function drawBars(pen, left) {
  const { top, cellHeight, rows } = layout;
  const most = Math.max(...table.counts);
  pen.textAlign = "left";
  pen.font = "9px system-ui, 'DejaVu Sans', sans-serif";
  rows.forEach((row, r) => {
    const y = top + r * cellHeight + 1;
    if (shares) {
      let x = left;
      const total = table.counts[row] || 1;
      shares[row].forEach((count, i) => {
        pen.fillStyle = model.study.palette[i % model.study.palette.length];
        pen.fillRect(x, y, (BARS * count) / total, cellHeight - 2);
        x += (BARS * count) / total;
      });
    } else {
      pen.fillStyle = "#b9b9c2";
      const length = ((BARS - 34) * table.counts[row]) / most;
      pen.fillRect(left, y, length, cellHeight - 2);
      pen.fillStyle = "#1d1d22";
      pen.fillText(number(table.counts[row]), left + length + 2, y + cellHeight / 2 - 0.5);
    }
  });
}

function drawTree(pen, brackets, place) {
  for (const corners of brackets) {
    pen.beginPath();
    corners.forEach(([at, high], i) => (i ? pen.lineTo(...place(at, high)) : pen.moveTo(...place(at, high))));
    pen.stroke();
  }
}

const groupIds = (id) => (options.by === "group" ? [id] : model.labels.groups.filter((g) => g.count && (g.name || "unnamed") === id).map((g) => g.id));
const isSelected = (id) => groupIds(id).some((g) => model.selection.groups.includes(g));

function placeOf(event) {
  if (!layout) return null;
  const row = Math.floor((event.offsetY - layout.top) / layout.cellHeight);
  const c = Math.floor((event.offsetX - layout.left) / layout.cellWidth);
  return { row, id: table.ids[layout.rows[row]], marker: table.markers[layout.columns[c]], m: layout.columns[c] };
}

function listen() {
  canvas.addEventListener("pointerdown", (event) => {
    const at = placeOf(event);
    drag = at?.id !== undefined && event.offsetX < label ? at : null;
  });
  canvas.addEventListener("pointerup", (event) => {
    const at = placeOf(event);
    if (drag && at && at.row !== drag.row && options.by === "group") reorder(drag.row, at.row);
    else if (at?.id !== undefined) {
      const add = event.ctrlKey || event.metaKey || event.shiftKey;
      if (options.by === "group") toggleGroup(at.id, add);
      else selectGroups(groupIds(at.id));
    }
    drag = null;
  });
  canvas.addEventListener("pointermove", (event) => {
    const at = placeOf(event);
    canvas.style.cursor = drag ? "grabbing" : "default";
    tip.hidden = !at || at.id === undefined || event.offsetY < layout.top;
    if (tip.hidden) return;
    const row = layout.rows[at.row];
    let text = `${rowName(at.id)}: ${number(table.counts[row])} cells`;
    if (at.marker) {
      text += `\n${at.marker}: mean ${table.raw[row][at.m].toFixed(2)}, z ${table.z[row][at.m].toFixed(2)}, `
        + `${(100 * table.positive[row][at.m]).toFixed(0)} % positive`;
    } else if (shares && event.offsetX > layout.left) {
      const names = columnNames(options.bars);
      const ranked = [...shares[row]].map((v, i) => [v, names[i]]).sort((a, b) => b[0] - a[0]).slice(0, 6);
      text += ranked.map(([v, name]) => `\n${name}: ${((100 * v) / table.counts[row]).toFixed(1)} %`).join("");
    }
    tip.textContent = text;
    tip.style.left = `${Math.min(event.clientX + 12, innerWidth - 280)}px`;
    tip.style.top = `${Math.min(event.clientY + 14, innerHeight - 90)}px`;
  });
  canvas.addEventListener("pointerleave", () => (tip.hidden = true));
}

function reorder(from, to) {
  const ids = layout.rows.map((row) => table.ids[row]);
  const goal = Math.min(Math.max(to, 0), ids.length - 1);
  ids.splice(goal, 0, ...ids.splice(from, 1));
  document.getElementById("table-sort").value = "hand";
  remember("order", ids);
  remember("sort", "hand");
  emit("order");
}
