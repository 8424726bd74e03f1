// Starts the page: loads, wires the views together, listens to keys.
import { toast } from "./api.js";
import { toggleChannel } from "./channels.js";
import { colourBy, colours, recolour, startColours } from "./colours.js";
import { clearAll, show, startDetail } from "./detail.js";
import { conflict, expertsDialog, helpDialog, tablesDialog, versionsDialog, whoDialog } from "./dialogs.js";
import { number } from "./dom.js";
import { nextExamples, setKind, startGallery } from "./gallery.js";
import { askEarly, startHeat } from "./heat.js";
import { idText, load, model, on, refresh, selectGroups, setConflict, setFields } from "./model.js";
import { acceptSuggestion, focusName, merge, startNaming, step, stepGroup } from "./naming.js";
import { startTissue, stepImage } from "./tissue.js";
import { openCanvas, startUmap, toggleLasso } from "./umap.js";

const byId = (id) => document.getElementById(id);

async function start() {
  setConflict(conflict);
  const who = localStorage.getItem("maskless-who") || "me";
  const loading = load(who);
  askEarly(who);
  openCanvas(); // the graphics process starts while the cells are on their way
  await loading;
  byId("study-name").textContent = model.study.name;
  byId("cell-count").textContent = `${number(model.n)} cells`;
  byId("who").textContent = model.who;
  document.title = `${model.study.name} – maskless`;
  startColours();
  startUmap();
  await recolour();
  startNaming();
  startDetail();
  on("selection", selectionText);
  header();
  enlarging();
  document.addEventListener("keydown", keys);
  await Promise.all([startHeat(), startTissue()]);
  startGallery();
  window.firstViewMs = performance.now();
  document.body.dataset.ready = "yes";
  if (model.who === "me" && !navigator.webdriver) whoDialog();
  window.addEventListener("focus", quietRefresh);
}

// What another tab or person wrote shows when one comes back to this one.
async function quietRefresh() {
  const before = model.labels.revision;
  if (byId("dialog").open || /INPUT|TEXTAREA/.test(document.activeElement.tagName)) return;
  try {
    const response = await fetch(`/api/state?who=${encodeURIComponent(model.who)}`);
    if (response.ok && (await response.json()).revision !== before) await refresh();
  } catch {
    // The next write says what is wrong.
  }
}

function selectionText() {
  const { selection } = model;
  const names = selection.groups.map((id) => model.byId.get(id).name || idText(id));
  byId("clear").hidden = !selection.count;
  byId("selection-text").textContent = !selection.count ? ""
    : selection.cells ? `${number(selection.count)} cells selected`
      : `${names.slice(0, 3).join(", ")}${names.length > 3 ? " …" : ""}: ${number(selection.count)} cells`;
}

function header() {
  const act = { undo: () => step("undo"), redo: () => step("redo"), versions: versionsDialog, experts: expertsDialog,
    tables: tablesDialog, help: helpDialog, who: whoDialog, clear: clearAll };
  for (const [id, react] of Object.entries(act)) byId(id).addEventListener("click", () => Promise.resolve(react()).catch((e) => toast(e.message)));
}

function enlarging() {
  document.querySelector("main").addEventListener("click", (event) => {
    if (!event.target.classList.contains("wide")) return;
    const panel = event.target.closest("section");
    panel.classList.toggle("enlarged");
    document.querySelector("main").classList.toggle("one", panel.classList.contains("enlarged"));
  });
}

const largest = (ids) => [...ids].sort((a, b) => model.byId.get(b).count - model.byId.get(a).count)[0];

const KEYS = {
  ArrowDown: () => stepGroup(1), j: () => stepGroup(1), ArrowUp: () => stepGroup(-1), k: () => stepGroup(-1),
  n: () => model.selection.groups.length && focusName(model.selection.groups[0]),
  Enter: () => model.selection.groups.length && focusName(model.selection.groups[0]),
  u: (ids) => ids.length && setFields(ids, { unsure: !model.byId.get(ids[0]).unsure }),
  o: (ids) => ids.length && setFields(ids, { name: "other" }),
  a: (ids) => ids.length === 1 && acceptSuggestion(ids[0]),
  m: (ids) => ids.length > 1 && merge(ids, largest(ids)),
  s: async () => {
    await show("group");
    document.querySelector("#detail button[title=S]")?.click();
  },
  w: () => show("why"), h: () => show("history"), l: toggleLasso, g: nextExamples,
  1: () => setKind("typical"), 2: () => setKind("borderline"), 3: () => setKind("random"),
  "[": () => stepImage(-1), "]": () => stepImage(1), t: () => byId("centres").click(), "?": helpDialog,
  c: () => {
    const cycle = ["group", "phenotype", "broad"];
    colourBy(cycle[(cycle.indexOf(colours.by) + 1) % cycle.length]);
  },
  Escape: () => {
    const wide = document.querySelector("section.enlarged .wide");
    wide ? wide.click() : selectGroups([]);
  },
};

function keys(event) {
  const typing = /INPUT|TEXTAREA|SELECT/.test(event.target.tagName) && event.target.type !== "checkbox";
  if (byId("dialog").open) return;
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z" && !typing) {
    event.preventDefault();
    step(event.shiftKey ? "redo" : "undo");
  } else if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "y" && !typing) {
    event.preventDefault();
    step("redo");
  } else if (!typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    if (event.target.tagName === "BUTTON" && event.key === "Enter") return;
    const digit = /^Digit([1-6])$/.exec(event.code);
    if (event.shiftKey && digit) {
      toggleChannel(Number(digit[1]) - 1);
      return;
    }
    const react = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!react) return;
    event.preventDefault();
    Promise.resolve(react(model.selection.groups)).catch((error) => toast(error.message));
  }
}

// A button whose request failed without anybody catching it.
window.addEventListener("unhandledrejection", (event) => toast(event.reason?.message ?? String(event.reason)));
start().catch((error) => toast(error.message));
