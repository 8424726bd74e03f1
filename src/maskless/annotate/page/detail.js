// Everything about the selected groups or the focused cell: edit, why, cell, history.
import { getJson, postJson, ServerError, toast } from "./api.js";
import { groupColour } from "./colours.js";
import { briefly, button, make, number, when } from "./dom.js";
import { mergeButtons } from "./naming.js";
import {
  chosen, focusCell, idText, model, on, phenotypeOf, scopes, selectGroups, selectionKept, setFields, write,
} from "./model.js";
import { splitSection } from "./split.js";
import { goTo } from "./tissue.js";

const TABS = { group: "Selection", why: "Why", cell: "Cell", history: "History" };
let tab = "group";
let box, tabs;
let pressed = false; // a button that is replaced under the mouse is not clicked
let late = false; // to be drawn when the mouse is up
let about = { groups: [], cells: null }; // the selection that is shown

export function startDetail() {
  box = document.getElementById("detail");
  tabs = document.getElementById("tabs");
  for (const [key, text] of Object.entries(TABS)) {
    const made = make("button", { type: "button", textContent: text, role: "tab", onclick: () => show(key) });
    made.dataset.tab = key;
    tabs.append(made);
  }
  const wide = make("button", { className: "wide", textContent: "⤢", ariaLabel: "enlarge details" });
  tabs.append(make("span", { className: "tools" }, wide));
  box.addEventListener("pointerdown", () => (pressed = true));
  for (const end of ["pointerup", "pointercancel", "dragend"]) {
    document.addEventListener(end, () => setTimeout(() => {
      pressed = false;
      if (late) draw();
    }));
  }
  on("selection", () => {
    const { groups, cells } = model.selection;
    const same = cells === about.cells && groups.join("\n") === about.groups.join("\n");
    about = { groups, cells };
    if (same && typing()) return; // cells were moved; what is being typed stays
    if (tab === "cell" || tab === "history") show("group");
    else draw();
  });
  on("labels table", () => (tab !== "why" && !typing() ? draw() : null));
  on("cell", () => show("cell"));
  on("image", () => (tab === "group" && !typing() ? draw() : null));
  show("group");
}

const typing = () => box.contains(document.activeElement) && /INPUT|TEXTAREA|SELECT/.test(document.activeElement.tagName);

export function show(key) {
  tab = key;
  for (const made of tabs.querySelectorAll("[role=tab]")) made.setAttribute("aria-selected", made.dataset.tab === key);
  return draw();
}

let asked = 0;
async function draw() {
  const mine = ++asked;
  let content;
  try {
    content = await { group: groupTab, why: whyTab, cell: cellTab, history: historyTab }[tab]();
  } catch (error) {
    if (!(error instanceof ServerError)) throw error;
    content = [quiet(error.message)];
  }
  if (mine !== asked) return;
  late = pressed;
  if (!late) box.replaceChildren(...content.filter(Boolean));
}

const quiet = (text) => make("p", { className: "quiet", textContent: text });

function groupTab() {
  const ids = model.selection.groups;
  if (model.selection.cells) return cellsTab();
  if (!ids.length) {
    return [
      quiet("Click a cluster in the table, the heat map or the UMAP; Ctrl-click adds another. Draw around cells with the lasso (L, or Shift and drag)."),
      quiet("Arrow keys go through the clusters, N types a name, U marks it unsure, O parks it in “other”. Press ? for all keys."),
    ];
  }
  if (ids.length > 1) return manyTab(ids);
  const group = model.byId.get(ids[0]);
  const suggestions = model.table?.suggestions[model.table.ids.indexOf(group.id)] ?? [];
  const notes = make("textarea", { value: group.notes, placeholder: "notes", ariaLabel: "notes" });
  notes.addEventListener("change", () => setFields([group.id], { notes: notes.value }));
  return [
    make("h3", { textContent: `${group.name ? `${group.name} · ` : ""}cluster ${idText(group.id)}, ${number(group.count)} cells` }),
    group.origin ? quiet(`from ${group.origin}`) : null,
    conflictLine(group),
    make("div", { className: "row" },
      button("park in “other”", () => setFields([group.id], { name: "other" }), "O"),
      button(group.unsure ? "sure now" : "mark unsure", () => setFields([group.id], { unsure: !group.unsure }), "U"),
      button("why?", () => show("why"), "W"),
    ),
    notes,
    ...suggestionLines(group, suggestions),
    ...byImage(group),
    ...splitSection(group),
  ];
}

function conflictLine(group) {
  const conflict = model.labels.conflicts[group.id];
  if (!conflict) return null;
  const line = make("div", { className: "row misfits" }, "Others call it: ");
  for (const [who, name] of Object.entries(conflict)) {
    if (who === model.who) continue;
    line.append(make("span", { className: "clip", textContent: `${name} (${who})`, title: name }));
    line.append(button("take over", () => write("/api/adopt", { source: who, groups: [group.id] }, `take ${name} over`)));
  }
  return line;
}

function suggestionLines(group, suggestions) {
  const lines = suggestions.map((suggestion) => {
    const evidence = make("span", { className: "evidence" });
    for (const { marker, wanted, z, fits } of suggestion.evidence) {
      evidence.append(make("span", {
        className: fits ? "fits" : "misfits", textContent: `${marker}${wanted ? "+" : "−"} ${z > 0 ? "+" : ""}${z.toFixed(1)}  `,
        title: `${marker} should be ${wanted ? "present" : "absent"}; z ${z.toFixed(2)}: ${fits ? "fits" : "does not fit"}`,
      }));
    }
    if (suggestion.missing.length) evidence.append(`not in the panel: ${suggestion.missing.join(", ")}`);
    return make("div", { className: "suggestion" },
      make("b", { textContent: suggestion.name }), make("span", { textContent: suggestion.score.toFixed(2) }), evidence,
      button("use", () => setFields([group.id], { name: suggestion.name, ...(group.broad ? {} : { broad: suggestion.broad }) }), suggestion === suggestions[0] ? "A" : ""));
  });
  const head = make("h3", { textContent: "Suggestions" });
  head.title = `from ${model.table?.suggested_by ?? ""}: z of each marker over clusters`;
  return lines.length ? [head, ...lines] : [head, quiet("No type of the marker table fits.")];
}

// Another name in one image, or in all images of its patient, tissue and so on.
function byImage(group) {
  if (model.study.images.length < 2) return [];
  const input = make("input", { type: "text", placeholder: `as elsewhere (${group.name || "unnamed"})`, ariaLabel: "name in these images" });
  const where = make("select", { ariaLabel: "images of this name" });
  const knownScopes = scopes();
  let typed = false; // before the scopes are there
  const fill = (found) => {
    const names = new Set(found[where.selectedIndex].images.map((image) => group.by_image[image] ?? ""));
    input.value = names.size === 1 ? [...names][0] : "";
  };
  knownScopes.then((found) => {
    where.append(...found.map(({ text, images }) => new Option(images.length > 1 ? `${text} (${images.length} images)` : text)));
    if (!typed) fill(found);
  }, (error) => toast(error.message));
  where.addEventListener("change", () => knownScopes.then(fill));
  input.addEventListener("input", () => (typed = true));
  input.addEventListener("change", () => {
    const name = input.value;
    knownScopes.then((found) => setFields([group.id], { name }, found[where.selectedIndex].images), () => null);
  });
  const known = Object.entries(group.by_image).map(([name, text]) => `${name}: ${text}`);
  return [
    make("div", { className: "row" }, "Only in ", where, " call it ", input),
    known.length ? quiet(`Other names: ${known.slice(0, 8).join("; ")}${known.length > 8 ? " …" : ""}`) : null,
  ];
}

function manyTab(ids) {
  const total = ids.reduce((sum, id) => sum + model.byId.get(id).count, 0);
  const name = make("input", { type: "text", placeholder: "name for all of them", ariaLabel: "name for all" });
  name.addEventListener("change", () => name.value && setFields(ids, { name: name.value }));
  const sorted = [...ids].sort((a, b) => model.byId.get(b).count - model.byId.get(a).count);
  return [
    make("h3", { textContent: `${ids.length} clusters (${ids.map(idText).join(", ")}), ${number(total)} cells` }),
    make("div", { className: "row" }, name, button("park in “other”", () => setFields(ids, { name: "other" }), "O")),
    make("div", { className: "row" }, ...mergeButtons(sorted)),
    ids.length === 2 ? make("div", { className: "row" }, button("what parts them?", () => show("why"), "W")) : null,
  ];
}

function cellsTab() {
  const target = make("select", { ariaLabel: "target" }, new Option("a new group", ""));
  for (const group of model.labels.groups) {
    if (group.count) target.append(new Option(`${idText(group.id)} ${group.name}`.slice(0, 40), group.id));
  }
  const name = make("input", { type: "text", placeholder: "name (may be empty)", ariaLabel: "name of the new group" });
  const counts = new Map();
  for (let i = 0; i < model.n; i++) {
    if (model.selection.mask[i]) counts.set(model.codes[i], (counts.get(model.codes[i]) ?? 0) + 1);
  }
  const ranked = [...counts].sort((a, b) => b[1] - a[1]);
  const found = ranked.slice(0, 8).map(([place, count]) => {
    const group = model.labels.groups[place];
    return `${idText(group.id)}${group.name ? ` ${group.name}` : ""} ${number(count)}`;
  });
  const move = async () => {
    const kept = selectionKept();
    const state = await write("/api/move", { cells: chosen().cells, into: target.value, name: name.value }, "move cells");
    if (state && kept()) selectGroups([target.value || state.groups[state.groups.length - 1].id]);
  };
  const main = model.labels.groups[ranked[0][0]];
  return [
    make("h3", { textContent: `${number(model.selection.count)} cells drawn around` }),
    quiet(`of ${found.join(", ")}`),
    make("div", { className: "row" }, "move them to ", target, name, button("move", move)),
    make("div", { className: "row" }, button("what parts them from the rest?", () => show("why"), "W")),
    ...splitSection(main, true),
  ];
}

async function whyTab() {
  const { selection } = model;
  if (!selection.count) return [quiet("Select one cluster (against all other cells) or two (against each other).")];
  const pair = selection.groups.length === 2;
  const sides = pair ? selection.groups.map((id) => ({ who: model.who, groups: [id] })) : [chosen(), null];
  const name = (id) => model.byId.get(id).name || `cluster ${idText(id)}`;
  const [a, b] = pair ? selection.groups.map(name)
    : [selection.cells ? "the drawn cells" : selection.groups.map(name).join(" + "), "all other cells"];
  box.replaceChildren(quiet("reading features …"));
  const rows = await postJson("/api/why", { who: model.who, first: sides[0], ...(sides[1] ? { second: sides[1] } : {}) });
  return [
    make("h3", { textContent: `What parts ${a} from ${b}` }),
    quiet("Exact shares of each marker in the distance of the two mean embeddings; they add up to 100 %. Right: mean activations."),
    ...shareBars(rows),
  ];
}

function shareBars(rows) {
  const most = Math.max(...rows.map((row) => Math.abs(row.share)), 0.01);
  return rows.map(({ marker, share, a, b }) => {
    const fill = make("div", { className: share < 0 ? "fill negative" : "fill" });
    fill.style.width = `${(100 * Math.abs(share)) / most}%`;
    const means = a === null ? "" : `${a.toFixed(2)} | ${b.toFixed(2)}`;
    return make("div", { className: "bar" }, make("span", { textContent: marker, title: marker }),
      make("div", { className: "track" }, fill),
      make("span", { className: "number", textContent: `${(100 * share).toFixed(1).replace(/^-0\.0$/, "0.0")} %` }),
      make("span", { className: "number quiet", textContent: means }));
  });
}

async function cellTab() {
  if (model.focus < 0) return [quiet("Click a cell in the tissue, the gallery or the UMAP.")];
  const who = encodeURIComponent(model.who);
  const cell = await getJson(`/api/cell/${model.focus}?who=${who}`);
  const where = model.study.images[cell.image];
  const told = Object.entries(cell.columns).map(([key, value]) => `, ${key} ${value}`).join("");
  const list = (others, text) => make("div", { className: "row" }, text, ...others.map((other) =>
    cellChip(other)));
  const ranked = cell.activations.map((value, m) => [model.study.markers[m], value, model.study.positive_above[m]]).sort((x, y) => y[1] - x[1]);
  const share = make("div", {}, quiet("contributions …"));
  getJson(`/api/cell/${cell.row}/contributions`).then(
    (rows) => share.replaceChildren(...shareBars(rows.slice(0, 12))),
    (error) => share.replaceChildren(quiet(error.message)),
  );
  return [
    make("h3", { textContent: `Cell ${cell.row}: ${phenotypeOf(cell.row)}, cluster ${idText(cell.group)}` }),
    quiet(`image ${where.name}, x ${cell.x.toFixed(1)}, y ${cell.y.toFixed(1)} px${told}`),
    make("div", { className: "row" }, button("select its cluster", () => selectGroups([cell.group]))),
    list(cell.beside, "next to it: "),
    cell.alike.length ? list(cell.alike, "most alike: ") : null,
    make("h3", { textContent: "Activations" }),
    make("p", {}, ...ranked.map(([marker, value, above]) => make("span", {
      className: value > above ? "fits" : "quiet", textContent: `${marker} ${value.toFixed(2)}  `, title: value > above ? "positive" : "not positive",
    }))),
    make("h3", { textContent: "What makes it differ from the mean of all cells" }),
    share,
  ];
}

function cellChip({ row, group, um }) {
  const dot = make("span", { className: "swatch" });
  dot.style.background = groupColour(model.byId.get(group));
  const chip = button("", () => (goTo(row), show("cell")), `cell ${row}: ${phenotypeOf(row)}, cluster ${idText(group)}`);
  chip.append(dot, ` ${idText(group)}${um === undefined ? "" : ` · ${um} µm`}`);
  return chip;
}

async function historyTab() {
  const rows = await getJson(`/api/history?who=${encodeURIComponent(model.who)}`);
  if (!rows.length) return [quiet("Nothing was done yet.")];
  const restore = (row) => write("/api/restore", { operation: row.id }, `back to operation ${row.id}`).then(() => show("history"));
  return [
    make("table", {}, ...rows.map((row) => make("tr", {},
      make("td", { className: "quiet", textContent: briefly(row.at), title: `${when(row.at)}, ${row.who}` }),
      make("td", { textContent: row.kind }),
      make("td", { className: row.in_force || row.kind === "undo" || row.kind === "redo" ? "" : "undone" }, make("span", { className: "clip", textContent: row.why, title: row.why })),
      make("td", {}, button("back to here", () => restore(row))),
    ))),
  ];
}

on("focus", () => tab === "cell" && draw());
export const clearAll = () => (selectGroups([]), focusCell(-1));
