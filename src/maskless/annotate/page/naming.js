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

function draw() {
  const active = document.activeElement;
  const typing = active?.closest?.("#names tbody tr") ? [active.closest("tr").dataset.id, active.dataset.field, active.value, active.selectionStart] : null;
  body.replaceChildren(...shownIds().map((id) => rowOf(model.byId.get(id))));
  if (typing) {
    const input = body.querySelector(`tr[data-id="${CSS.escape(typing[0])}"] input[data-field="${typing[1]}"]`);
    if (input) {
      input.value = typing[2];
      input.focus();
      if (typing[3] !== null && typing[3] !== undefined) input.setSelectionRange(typing[3], typing[3]);
    }
  }
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

function rowOf(group) {
  const row = make("tr");
  row.dataset.id = group.id;
  if (model.labels.conflicts[group.id]) {
    row.classList.add("conflict");
    row.title = Object.entries(model.labels.conflicts[group.id]).map(([who, name]) => `${who}: ${name}`).join("\n");
  }
  const swatch = make("input", { type: "color", className: "swatch", value: groupColour(group), ariaLabel: `colour of ${idText(group.id)}` });
  swatch.addEventListener("change", () => setFields([group.id], { color: swatch.value }));
  swatch.addEventListener("click", (event) => event.stopPropagation());
  const unsure = make("input", { type: "checkbox", checked: group.unsure, title: "unsure (U)", ariaLabel: `unsure about ${idText(group.id)}` });
  unsure.addEventListener("change", () => setFields([group.id], { unsure: unsure.checked }));
  unsure.addEventListener("click", (event) => event.stopPropagation());
  row.append(
    make("td", {}, swatch),
    make("td", { textContent: idText(group.id), title: group.origin }),
    make("td", { className: "number", textContent: number(group.count) }),
    make("td", { className: "name" }, field(group, "name")),
    make("td", { className: "broad" }, field(group, "broad")),
    make("td", {}, unsure),
  );
  row.addEventListener("click", (event) => toggleGroup(group.id, event.ctrlKey || event.metaKey || event.shiftKey));
  return row;
}

function field(group, key) {
  const best = model.table?.suggestions[model.table.ids.indexOf(group.id)]?.[0];
  const input = make("input", {
    type: "text", value: group[key], maxLength: 20000, list: key === "name" ? "known-names" : "known-broad",
    placeholder: !group[key] && best ? `${best[key]}?` : "", ariaLabel: `${key} of ${idText(group.id)}`,
  });
  input.dataset.field = key;
  const save = () => {
    const now = model.byId.get(group.id);
    if (now && input.value !== now[key]) return setFields([group.id], { [key]: input.value });
    return null;
  };
  input.addEventListener("change", save);
  input.addEventListener("click", (event) => event.stopPropagation());
  input.addEventListener("focus", () => {
    if (model.selection.groups.length !== 1 || model.selection.groups[0] !== group.id) selectGroups([group.id]);
  });
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter") {
      save();
      const next = event.shiftKey ? input.closest("tr").previousElementSibling : input.closest("tr").nextElementSibling;
      next?.querySelector(`input[data-field=${key}]`)?.focus();
      event.preventDefault();
    } else if (event.key === "Escape") {
      input.value = model.byId.get(group.id)[key];
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

export async function merge(ids, into) {
  if (ids.length < 2) return;
  await write("/api/merge", { groups: ids, into }, `merge ${ids.map(idText).join(", ")}`);
  selectGroups([into]);
}

export function focusName(id) {
  body.querySelector(`tr[data-id="${CSS.escape(id)}"] input[data-field=name]`)?.focus();
}

export function stepGroup(by) {
  const ids = shownIds();
  const at = ids.indexOf(model.selection.groups[0]);
  selectGroups([ids[Math.min(Math.max(at < 0 ? (by > 0 ? 0 : ids.length - 1) : at + by, 0), ids.length - 1)]]);
}

export const mergeButtons = (ids) =>
  ids.slice(0, 6).map((id) => button(`merge into ${idText(id)}`, () => merge(ids, id), "M merges into the largest"));
