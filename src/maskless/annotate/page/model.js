// What the page knows: the study, its cells, one person's labels, the selection. Views listen.
import { bitsOf, getBytes, getJson, post, postJson, toast } from "./api.js";

export const model = {
  study: null, // what the server says once
  n: 0,
  umap: null, // Float32Array 2n
  xy: null, // Float32Array 2n, pixels
  image: null, // Uint16Array n
  codes: null, // Uint16Array n, positions in labels.groups
  columns: new Map(), // name -> Uint16Array
  activations: new Map(), // marker -> {values, low, high}
  labels: null, // the server's state: revision, groups, undo, redo, conflicts
  byId: new Map(),
  settings: {},
  who: "",
  selection: { groups: [], cells: null, mask: null, count: 0 },
  focus: -1, // a single cell
  imageShown: 0,
  table: null, // heat map of the groups
};

const listeners = new Map();

export function on(events, react) {
  for (const event of events.split(" ")) {
    if (!listeners.has(event)) listeners.set(event, []);
    listeners.get(event).push(react);
  }
}

export function emit(...events) {
  const due = new Set(events.flatMap((event) => listeners.get(event) ?? []));
  for (const react of due) react();
}

const whoQuery = () => `who=${encodeURIComponent(model.who)}`;

export const idText = (id) => (id === "-1" ? "unknown" : id);

export const groups = () => model.labels.groups.filter((group) => group.count > 0);

export async function load(who) {
  model.who = who;
  const study = await getJson("/api/study");
  model.study = study;
  model.n = study.cells;
  const [umap, xy, image, , settings] = await Promise.all([
    getBytes("/api/cells/umap"),
    getBytes("/api/cells/xy"),
    getBytes("/api/cells/image"),
    refresh(true),
    getJson(`/api/settings?${whoQuery()}`),
  ]);
  model.umap = new Float32Array(umap.buffer);
  model.xy = new Float32Array(xy.buffer);
  model.image = new Uint16Array(image.buffer);
  model.settings = settings;
}

export async function changeWho(who) {
  await queue.catch(() => null); // what was typed before belongs to the one who typed it
  model.who = who;
  model.settings = await getJson(`/api/settings?${whoQuery()}`);
  await refresh();
}

// Fetch the labels as they are now.
export async function refresh(quiet = false) {
  const then = taken;
  await take(await getJson(`/api/state?${whoQuery()}`), true, () => then === taken);
  if (!quiet) emit("labels", "codes", "selection");
}

let taken = 0;

// Labels and the cells' positions in them change together: in between, they would not fit.
async function take(state, moved, inTime = () => true) {
  const bytes = moved ? await getBytes(`/api/codes?${whoQuery()}`) : null;
  if (state.who !== model.who || !inTime()) return; // a later answer was here before
  taken += 1;
  model.labels = state;
  model.byId = new Map(state.groups.map((group, place) => [group.id, { ...group, place }]));
  if (!bytes) return;
  model.codes = new Uint16Array(bytes.buffer);
  model.codesOf = state.cells;
  model.selection.groups = model.selection.groups.filter((id) => (model.byId.get(id)?.count ?? 0) > 0);
  maskSelection();
}

// Writes go out one after the other, so that each knows the revision that the last one made.
let queue = Promise.resolve();
let onConflict = null;
export const setConflict = (react) => (onConflict = react);

export function write(path, body, told) {
  const saved = document.getElementById("saved");
  const run = async () => {
    saved.textContent = "saving …";
    const started = performance.now();
    try {
      const state = await postJson(path, { who: model.who, revision: model.labels.revision, ...body });
      window.lastSaveMs = performance.now() - started;
      const moved = state.cells !== model.codesOf;
      await take(state, moved);
      saved.textContent = "saved";
      emit("labels", ...(moved ? ["codes", "selection"] : []));
      return state;
    } catch (error) {
      saved.textContent = "";
      if (error.kind === "stale") return onConflict(error, () => write(path, body, told), told);
      toast(error.message);
      emit("labels");
      return null;
    }
  };
  queue = queue.then(run, run);
  return queue;
}

export const setFields = (ids, fields, images = []) =>
  write(
    "/api/name",
    { groups: ids, fields, ...(images.length ? { images } : {}) },
    `${ids.map(idText).join(", ")}: ${Object.entries(fields).map(([k, v]) => `${k} “${v}”`).join(", ")}`,
  );

export function remember(key, value) {
  model.settings[key] = value;
  post("/api/setting", { who: model.who, key, value }).catch((error) => toast(error.message));
}

// ---- selection

function maskSelection() {
  const { selection, n, codes } = model;
  if (selection.cells) {
    selection.mask = selection.cells;
  } else if (selection.groups.length) {
    const wanted = new Uint8Array(model.labels.groups.length);
    for (const id of selection.groups) wanted[model.byId.get(id).place] = 1;
    const mask = new Uint8Array(n);
    for (let i = 0; i < n; i++) mask[i] = wanted[codes[i]];
    selection.mask = mask;
  } else {
    selection.mask = null;
  }
  let count = 0;
  if (selection.mask) for (let i = 0; i < n; i++) count += selection.mask[i];
  selection.count = count;
}

let choices = 0;

// Tells later whether nothing else was selected since: a late answer must not take a choice back.
export function selectionKept() {
  const then = choices;
  return () => then === choices;
}

export function selectGroups(ids) {
  choices += 1;
  model.selection.groups = ids;
  model.selection.cells = null;
  maskSelection();
  emit("selection");
}

export function toggleGroup(id, add) {
  const now = model.selection.groups;
  if (!add) selectGroups([id]);
  else selectGroups(now.includes(id) ? now.filter((other) => other !== id) : [...now, id]);
}

export function selectCells(mask) {
  choices += 1;
  model.selection.groups = [];
  model.selection.cells = mask;
  maskSelection();
  if (!model.selection.count) model.selection.cells = model.selection.mask = null;
  emit("selection");
}

export function focusCell(row, showTissue = false) {
  model.focus = row;
  if (row >= 0 && showTissue && model.image[row] !== model.imageShown) {
    model.imageShown = model.image[row];
    emit("image");
  }
  emit("focus");
}

// The selection as the server understands it.
export function chosen() {
  const { selection, who } = model;
  if (selection.cells) return { who, cells: bitsOf(selection.cells) };
  return { who, groups: selection.groups };
}

export async function activation(marker) {
  if (!model.activations.has(marker)) {
    const place = model.study.markers.indexOf(marker);
    const { buffer, headers } = await getBytes(`/api/cells/activation/${place}`);
    model.activations.set(marker, {
      values: new Uint8Array(buffer),
      low: Number(headers.get("x-low")),
      high: Number(headers.get("x-high")),
    });
  }
  return model.activations.get(marker);
}

export async function column(name) {
  if (name === "image") return model.image;
  if (!model.columns.has(name)) {
    const { buffer } = await getBytes(`/api/cells/column/${encodeURIComponent(name)}`);
    model.columns.set(name, new Uint16Array(buffer));
  }
  return model.columns.get(name);
}

export const columnNames = (name) =>
  name === "image" ? model.study.images.map((image) => image.name) : model.study.columns[name];

// Which images a name may hold in: the one that is shown, and those that share a column's value
// with it, such as all images of its patient. [{text, images}]
export async function scopes() {
  const { images, columns } = model.study;
  const found = [{ text: `image ${images[model.imageShown].name}`, images: [images[model.imageShown].name] }];
  for (const name of Object.keys(columns)) {
    const codes = await column(name);
    const values = images.map(() => -1);
    let constant = true;
    for (let i = 0; i < model.n && constant; i++) {
      const here = model.image[i];
      if (values[here] < 0) values[here] = codes[i];
      constant = values[here] === codes[i];
    }
    const shown = values[model.imageShown];
    if (constant && shown >= 0) {
      const alike = images.filter((_, i) => values[i] === shown).map((image) => image.name);
      found.push({ text: `${name} ${columns[name][shown]}`, images: alike });
    }
  }
  return found;
}

// Names of the cells' phenotypes by group, with those that hold in one image only.
export function phenotypeOf(row) {
  const group = model.labels.groups[model.codes[row]];
  const here = group.by_image[model.study.images[model.image[row]].name];
  return here || group.name || "unnamed";
}
