// Versions, experts, tables, help, and what happens when two tabs change the same labels.
import { getJson, postJson, toast } from "./api.js";
import { ask, button, make, number, when } from "./dom.js";
import { changeWho, idText, model, refresh, write } from "./model.js";

const query = (text) => encodeURIComponent(text);

// Another tab was faster: show what it did and what was wanted here; nothing is dropped silently.
export async function conflict(error, again, wanted) {
  const known = model.labels.revision;
  await refresh();
  const rows = (await getJson(`/api/history?who=${query(model.who)}`)).filter((row) => row.id > known);
  const answer = await ask("These labels were changed elsewhere", [
    make("p", { textContent: "Another tab or person wrote under the same name while this page was open:" }),
    make("ul", {}, ...rows.slice(0, 12).map((row) => make("li", { textContent: `${when(row.at)}  ${row.kind}: ${row.why}` }))),
    make("p", { textContent: "Not saved yet, wanted here:" }),
    make("p", {}, make("b", { textContent: wanted ?? "a change" })),
  ], ["leave it as it is now", "do mine on top"]);
  // Not awaited: the write queue that called us must go on.
  if (answer === "do mine on top") setTimeout(again);
  return null;
}

export async function versionsDialog() {
  const rows = await getJson(`/api/history?who=${query(model.who)}`);
  const named = rows.filter((row) => row.kind === "version");
  const name = make("input", { type: "text", placeholder: "name of this version", ariaLabel: "name of this version" });
  const result = make("div");
  const pick = (label) => {
    const select = make("select", { ariaLabel: label }, new Option("as it is now", ""), new Option("at the start", "0"));
    for (const row of named) select.append(new Option(row.why, row.id));
    return select;
  };
  const [first, second] = [pick("first version"), pick("second version")];
  if (named.length) first.value = named[0].id;
  const compare = async () => {
    const side = (key, select) => `${key}_who=${query(model.who)}&${key}_operation=${select.value}`;
    result.replaceChildren(...comparison(await getJson(`/api/compare?${side("first", first)}&${side("second", second)}`),
      first.selectedOptions[0].text, second.selectedOptions[0].text));
  };
  const list = make("table", {}, ...named.map((row) => make("tr", {},
    make("td", { textContent: row.why }), make("td", { className: "quiet", textContent: when(row.at) }),
    make("td", {}, button("bring back", () => {
      document.getElementById("dialog").close();
      write("/api/restore", { operation: row.id }, `bring back ${row.why}`);
    })))));
  const keep = button("keep this version", async () => {
    if (!name.value) return;
    await write("/api/version", { name: name.value }, `version ${name.value}`);
    versionsDialog();
  });
  await ask("Versions", [
    make("div", { className: "row" }, name, keep),
    named.length ? list : make("p", { className: "quiet", textContent: "No version has a name yet." }),
    make("h3", { textContent: "Compare" }),
    make("div", { className: "row" }, first, " with ", second, button("compare", compare)),
    result,
  ], ["close"]);
}

function comparison(found, first, second) {
  const share = `${(100 * found.share).toFixed(1)} % of the cells have the same name`;
  const kappa = found.kappa === null ? "" : `, Cohen's kappa ${found.kappa.toFixed(3)}`;
  const rows = found.differences.slice(0, 60).map((row) => {
    const what = Object.entries(row.fields).map(([key, [a, b]]) => `${key}: ${said(a)} → ${said(b)}`);
    if (row.cells[0] !== row.cells[1]) what.push(`cells: ${number(row.cells[0])} → ${number(row.cells[1])}`);
    return make("tr", {}, make("td", { textContent: idText(row.id) }), make("td", { textContent: what.join("; ").slice(0, 300) }));
  });
  return [
    make("p", {}, make("b", { textContent: share + kappa })),
    matrix(found, first, second),
    rows.length ? make("h3", { textContent: "Clusters that differ" }) : null,
    make("table", {}, ...rows),
  ].filter(Boolean);
}

const said = (value) => (typeof value === "object" ? JSON.stringify(value) : String(value) || "nothing");

function matrix(found, first, second) {
  if (found.rows.length > 30 || found.columns.length > 30) return make("p", { className: "quiet", textContent: "Too many names for a table." });
  const short = (text) => (text.length > 14 ? `${text.slice(0, 13)}…` : text);
  const head = make("tr", {}, make("th", { textContent: `${first} \\ ${second}` }), ...found.columns.map((name) => make("th", { textContent: short(name), title: name })));
  const lines = found.rows.map((name, r) => make("tr", {}, make("th", { textContent: short(name), title: name }),
    ...found.columns.map((other, c) => make("td", {
      className: name === other ? "same" : "", textContent: found.table[r][c] ? number(found.table[r][c]) : "",
    }))));
  const table = make("table", { className: "matrix" }, head, ...lines);
  const box = make("div", {}, table);
  box.style.overflow = "auto";
  return box;
}

export async function expertsDialog() {
  const { experts, conflicts } = model.labels;
  const others = experts.filter((name) => name !== model.who);
  const result = make("div");
  const other = make("select", { ariaLabel: "other expert" }, ...others.map((name) => new Option(name, name)));
  const compare = async () => {
    const found = await getJson(`/api/compare?first_who=${query(model.who)}&second_who=${query(other.value)}`);
    result.replaceChildren(...comparison(found, model.who, other.value));
  };
  const adopt = async () => {
    document.getElementById("dialog").close();
    await write("/api/adopt", { source: other.value }, `take names over from ${other.value}`);
  };
  const count = Object.keys(conflicts).length;
  const body = others.length
    ? [
      make("p", { textContent: `${count} cluster${count === 1 ? "" : "s"} with different names${count ? ` (${Object.keys(conflicts).map(idText).join(", ")})` : ""}.` }),
      make("div", { className: "row" }, `${model.who} and `, other, button("compare", compare),
        button("take over names where I have none", adopt)),
      result,
    ]
    : [make("p", { textContent: "Nobody else has named these clusters. Each expert opens the same page and writes the own name at the upper right; labels are kept apart, and compared here." })];
  await ask("Experts", body, ["close"]);
}

export async function whoDialog() {
  const input = make("input", { type: "text", value: model.who === "me" ? "" : model.who, maxLength: 200, ariaLabel: "your name" });
  const known = (model.labels?.experts ?? []).map((name) => button(name, () => (input.value = name)));
  const answer = await ask("Who is naming?", [
    make("p", { textContent: "Your labels and their history are kept under this name." }), input,
    known.length ? make("div", { className: "row" }, "known: ", ...known) : "",
  ], ["use this name"]);
  if (!answer || !input.value.trim()) return;
  localStorage.setItem("maskless-who", input.value.trim());
  document.getElementById("who").textContent = input.value.trim();
  await changeWho(input.value.trim());
}

export async function tablesDialog() {
  const file = make("input", { type: "file", accept: ".csv,.tsv,.txt,text/csv", ariaLabel: "table of names" });
  const load = async () => {
    if (!file.files.length) return toast("Choose a CSV file first.");
    const state = await write("/api/import", { text: await file.files[0].text() }, "import a table");
    document.getElementById("dialog").close();
    if (state?.unknown.length) toast(`Not in this study: clusters ${state.unknown.slice(0, 12).join(", ")}`);
    else if (state) toast("Names imported; undo takes them back.", true);
    return null;
  };
  const save = async () => {
    try {
      const done = await postJson("/api/export", { who: model.who });
      document.getElementById("dialog").close();
      toast(`${done.phenotypes} names written into obs["phenotype"] of ${done.file}`, true);
    } catch (error) {
      toast(error.message);
    }
  };
  const link = make("a", { href: `/api/names.csv?who=${query(model.who)}`, download: "clusters.csv", textContent: "clusters.csv" });
  await ask("Import and export", [
    make("h3", { textContent: "Spreadsheet" }),
    make("p", {}, "Download ", link, ": one row a cluster with its name, broad class, notes."),
    make("div", { className: "row" }, "Import a CSV with columns cluster and name: ", file, button("import", load)),
    make("h3", { textContent: "AnnData" }),
    make("div", { className: "row" }, "Write your names into cells.h5ad: ", button("write obs[\"phenotype\"]", save)),
  ], ["close"]);
}

const KEYS = [
  ["↑ ↓ or K J", "previous, next cluster"], ["N or Enter", "type its name; Enter saves and goes on, Esc leaves"],
  ["A", "take the first suggestion over"], ["U", "mark unsure"], ["O", "park in “other”"], ["M", "merge the selected clusters into the largest"],
  ["S", "split by PhenoGraph"], ["W", "why do they differ?"], ["L, or Shift and drag", "lasso in the UMAP"],
  ["Ctrl+Z, Ctrl+Shift+Z", "undo, redo"], ["1 2 3, G", "typical, borderline, random; other examples"],
  ["[ ]", "previous, next image"], ["C", "colour by cluster, phenotype, broad class"], ["T", "cell centres on and off"],
  ["Shift+1 … 6", "markers of the tissue on and off"],
  ["H", "history"], ["Esc", "clear the selection"], ["?", "this list"],
];

export const helpDialog = () =>
  ask("Keys", make("table", {}, ...KEYS.map(([key, what]) => make("tr", {}, make("td", {}, make("b", { textContent: key })), make("td", { textContent: what })))), ["close"]);
