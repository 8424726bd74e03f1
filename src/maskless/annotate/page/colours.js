// Colours of cells, the same in the UMAP and in the tissue.
import { activation, column, columnNames, emit, model, on, remember } from "./model.js";

const UNKNOWN = "#b4b4bc"; // darker than the cells that a selection leaves out
const RAMP = ["#dcdce0", "#a9cbe0", "#5f9bd0", "#4457b0", "#3a1a6e", "#1c0538"];

export const colours = {
  by: "group", // group, phenotype, broad, column:NAME, marker:NAME
  rgba: null, // Uint32Array n, little endian
  legend: null, // {name, low, high} for markers, {name, entries: [[text, colour]]} for columns
};

export const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
const packed = (hex) => {
  const [r, g, b] = rgb(hex);
  return (0xff000000 | (b << 16) | (g << 8) | r) >>> 0;
};

export function ramp(share, stops = RAMP) {
  const at = Math.min(Math.max(share, 0), 1) * (stops.length - 1);
  const i = Math.min(Math.floor(at), stops.length - 2);
  const [a, b] = [rgb(stops[i]), rgb(stops[i + 1])];
  return a.map((v, c) => Math.round(v + (b[c] - v) * (at - i)));
}

const palette = (i) => model.study.palette[i % model.study.palette.length];

export function groupColour(group) {
  if (group.color) return group.color;
  return model.study.colors[group.id] ?? palette(group.place ?? model.byId.get(group.id).place);
}

// A phenotype has the colour of its largest group.
export function nameColours(field = "name") {
  const found = new Map();
  for (const group of [...model.labels.groups].sort((a, b) => b.count - a.count)) {
    if (group.count && group[field] && !found.has(group[field])) found.set(group[field], groupColour(group));
    if (field === "name") {
      for (const name of Object.values(group.by_image)) {
        if (!found.has(name)) found.set(name, palette(29 + found.size));
      }
    }
  }
  // Two names must not look alike because their groups' colours were taken by hand or by position.
  found.set("unnamed", UNKNOWN);
  return found;
}

let asked = 0;

export async function recolour() {
  const mine = ++asked;
  const n = model.n;
  const [kind, name] = colours.by.split(/:(.*)/s);
  const out = new Uint32Array(n);
  colours.legend = null;
  if (kind === "marker") {
    const { values, low, high } = await activation(name);
    const table = Uint32Array.from({ length: 256 }, (_, v) => {
      const [r, g, b] = ramp(v / 255);
      return (0xff000000 | (b << 16) | (g << 8) | r) >>> 0;
    });
    for (let i = 0; i < n; i++) out[i] = table[values[i]];
    colours.legend = { low, high, name };
  } else if (kind === "column") {
    const codes = await column(name);
    const table = Uint32Array.from(columnNames(name), (_, i) => packed(palette(i)));
    for (let i = 0; i < n; i++) out[i] = table[codes[i]];
    colours.legend = { name, entries: columnNames(name).map((text, i) => [text, palette(i)]) };
  } else {
    const { groups } = model.labels;
    const named = kind === "group" ? null : nameColours(kind === "broad" ? "broad" : "name");
    const field = kind === "broad" ? "broad" : "name";
    const table = Uint32Array.from(groups, (group) =>
      packed(named ? (named.get(group[field]) ?? UNKNOWN) : groupColour(group)),
    );
    for (let i = 0; i < n; i++) out[i] = table[model.codes[i]];
    if (kind === "phenotype") colourByImage(out, named);
  }
  if (mine !== asked) return; // something else was chosen meanwhile
  colours.rgba = out;
  emit("colours");
}

function colourByImage(out, named) {
  const places = new Map(model.study.images.map((image, i) => [image.name, i]));
  model.labels.groups.forEach((group, place) => {
    for (const [image, name] of Object.entries(group.by_image)) {
      const number = places.get(image);
      const colour = packed(named.get(name) ?? UNKNOWN);
      for (let i = 0; i < out.length; i++) {
        if (model.codes[i] === place && model.image[i] === number) out[i] = colour;
      }
    }
  });
}

export function startColours() {
  const select = document.getElementById("colour");
  const add = (parent, value, text) => parent.append(new Option(text, value));
  add(select, "group", "cluster");
  add(select, "phenotype", "phenotype");
  add(select, "broad", "broad class");
  add(select, "column:image", "image");
  for (const name of Object.keys(model.study.columns)) add(select, `column:${name}`, name);
  const markers = document.createElement("optgroup");
  markers.label = "activation";
  for (const marker of model.study.markers) add(markers, `marker:${marker}`, marker);
  select.append(markers);
  const before = model.settings.colour;
  if (before && [...select.options].some((option) => option.value === before)) colours.by = before;
  select.value = colours.by;
  select.addEventListener("change", () => colourBy(select.value));
  on("labels codes", () => {
    if (!/^(marker|column):/.test(colours.by)) recolour();
  });
}

export function colourBy(value) {
  colours.by = value;
  document.getElementById("colour").value = value;
  remember("colour", value);
  recolour();
}
