// The table of groups: names typed in place, saved with Enter or when left.
import { groupColour } from "./colours.js";
import { button, make, number } from "./dom.js";
import { rowOrder } from "./heat.js";
import { emit, groups, idText, model, on, remember, selectGroups, setFields, toggleGroup, write } from "./model.js";

let body;

export function startNaming() {
  body = document.querySelector("#names tbody");
  const sort = document.getElementById("table-sort");
  sort.value = model.settings.sort ?? "tree";
  sort.addEventListener("change", () => {
    remember("sort", sort.value);
    emit("order");
  });
  on("labels codes order", draw);
  on("selection", mark);
  draw();
}

// Groups in the order that is shown, the same as in the heat map.
export function shownIds() {
  const known = rowOrder().map((row) => model.table.ids[row]);
  const there = groups().map((group) => group.id);
  return [...known.filter((id) => there.includes(id)), ...there.filter((id) => !known.includes(id))];
}

// Rows are kept and brought up to date, so that a name that is being typed stays as it is.
function draw() {
  const rows = new Map([...body.rows].map((row) => [row.dataset.id, row]));
  shownIds().forEach((id, place) => {
    const row = rows.get(id) ?? rowOf(id);
    rows.delete(id);
    if (body.rows[place] !== row) body.insertBefore(row, body.rows[place] ?? null);
    row.update(model.byId.get(id));
  });
  for (const row of rows.values()) row.remove();
  const list = groups();
  const named = list.filter((group) => group.name).length;
  const cells = list.reduce((sum, group) => sum + (group.name ? group.count : 0), 0);
  document.getElementById("progress").textContent =
    `${named} of ${list.length} named, ${Math.round((100 * cells) / model.n)} % of cells`;
  fill("known-names", [...new Set([...list.map((g) => g.name), ...suggested("name")])]);
  fill("known-broad", [...new Set([...list.map((g) => g.broad), ...suggested("broad")])]);
  mark();
  buttons();
}

const suggested = (key) => (model.table?.suggestions ?? []).flat().map((s) => s[key]);

function fill(id, texts) {
  document.getElementById(id).replaceChildren(...texts.filter(Boolean).map((value) => make("option", { value })));
}

function rowOf(id) {
  const row = make("tr");
  row.dataset.id = id;
  const swatch = make("input", { type: "color", className: "swatch", ariaLabel: `colour of ${idText(id)}` });
  swatch.addEventListener("change", () => setFields([id], { color: swatch.value }));
  const unsure = make("input", { type: "checkbox", title: "unsure (U)", ariaLabel: `unsure about ${idText(id)}` });
  unsure.addEventListener("change", () => setFields([id], { unsure: unsure.checked }));
  for (const control of [swatch, unsure]) control.addEventListener("click", (event) => event.stopPropagation());
  const [name, broad] = [field(id, "name"), field(id, "broad")];
  const called = make("td", { textContent: idText(id) });
  const count = make("td", { className: "number" });
  row.append(make("td", {}, swatch), called, count, make("td", { className: "name" }, name), make("td", { className: "broad" }, broad), make("td", {}, unsure));
  row.addEventListener("click", (event) => toggleGroup(id, event.ctrlKey || event.metaKey || event.shiftKey));
  row.update = (group) => {
    const conflict = model.labels.conflicts[id];
    row.classList.toggle("conflict", Boolean(conflict));
    row.title = conflict ? Object.entries(conflict).map(([who, said]) => `${who}: ${said}`).join("\n") : "";
    called.title = group.origin;
    count.textContent = number(group.count);
    swatch.value = groupColour(group);
    unsure.checked = group.unsure;
    name.update(group);
    broad.update(group);
  };
  return row;
}

function field(id, key) {
  const input = make("input", {
    type: "text", maxLength: 20000, list: key === "name" ? "known-names" : "known-broad", ariaLabel: `${key} of ${idText(id)}`,
  });
  input.dataset.field = key;
  let typed = false; // what is typed and not yet saved must not be written over
  let sent = 0;
  input.update = (group) => {
    const best = model.table?.suggestions[model.table.ids.indexOf(id)]?.[0];
    input.placeholder = best ? `${best[key]}?` : "";
    if (!typed && !sent && input.value !== group[key]) input.value = group[key];
  };
  const save = () => {
    const group = model.byId.get(id);
    if (typed && group && input.value !== group[key]) {
      const settled = () => {
        sent -= 1;
        if (model.byId.has(id)) input.update(model.byId.get(id));
      };
      sent += 1;
      setFields([id], { [key]: input.value }).then(settled, settled);
    }
    typed = false;
  };
  input.addEventListener("input", () => (typed = true));
  input.addEventListener("change", save);
  input.addEventListener("blur", save);
  input.addEventListener("click", (event) => event.stopPropagation());
  input.addEventListener("focus", () => {
    if (model.selection.groups.length !== 1 || model.selection.groups[0] !== id) selectGroups([id]);
  });
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter") {
      save();
      const row = input.closest("tr");
      const next = event.shiftKey ? row.previousElementSibling : row.nextElementSibling;
      (next?.querySelector(`input[data-field=${key}]`) ?? input).focus();
      event.preventDefault();
    } else if (event.key === "Escape") {
      typed = false;
      input.value = model.byId.get(id)[key];
      input.blur();
      event.stopPropagation();
    }
  });
  return input;
}

function mark() {
  const chosen = model.selection.groups;
  for (const row of body.rows) {
    row.classList.toggle("selected", chosen.includes(row.dataset.id) && (chosen.length !== 2 || chosen[0] === row.dataset.id));
    row.classList.toggle("second", chosen.length === 2 && chosen[1] === row.dataset.id);
  }
  if (chosen.length === 1) {
    body.querySelector(`tr[data-id="${CSS.escape(chosen[0])}"]`)?.scrollIntoView({ block: "nearest" });
  }
}

function buttons() {
  const { undo, redo } = model.labels;
  const set = (id, what) => {
    const element = document.getElementById(id);
    element.disabled = what === null;
    element.title = what === null ? `nothing to ${id}` : `${id}: ${what}`;
  };
  set("undo", undo);
  set("redo", redo);
}

export const step = (kind) => write("/api/step", { kind }, kind);

// What is left of a selection that was merged is the group that took it up.
export const merge = (ids, into) =>
  ids.length > 1 && write("/api/merge", { groups: ids, into }, `merge ${ids.map(idText).join(", ")}`);

export function focusName(id) {
  body.querySelector(`tr[data-id="${CSS.escape(id)}"] input[data-field=name]`)?.focus();
}

// Take the first suggestion over; a person asked for it.
export function acceptSuggestion(id) {
  const best = model.table?.suggestions[model.table.ids.indexOf(id)]?.[0];
  if (!best) return null;
  return setFields([id], { name: best.name, ...(model.byId.get(id).broad ? {} : { broad: best.broad }) });
}

export function stepGroup(by) {
  const ids = shownIds();
  const at = ids.indexOf(model.selection.groups[0]);
  selectGroups([ids[Math.min(Math.max(at < 0 ? (by > 0 ? 0 : ids.length - 1) : at + by, 0), ids.length - 1)]]);
}

export const mergeButtons = (ids) =>
  ids.slice(0, 6).map((id) => button(`merge into ${[idText(id), model.byId.get(id).name.slice(0, 30)].join(" ").trim()}`, () => merge(ids, id), "M merges into the largest"));
