// Split a group: by PhenoGraph in the background, with progress and cancel, or at a threshold.
import { getJson, postJson, toast } from "./api.js";
import { button, make, number } from "./dom.js";
import { activation, chosen, idText, model, selectGroups, selectionKept, write } from "./model.js";

let job = null; // the last one that was started
let shown = null; // where the details show it now: they are drawn anew at any time
const entered = { k: 30, resolution: 1, min_size: 20 }; // outlives the fields
const edge = { marker: "", above: "" }; // of the threshold; the same

export function splitSection(group, ofCells = false) {
  const entry = (key, label, step) => {
    const field = make("input", { type: "number", value: entered[key], step, min: 0, ariaLabel: label, title: label });
    field.style.width = "48px";
    field.addEventListener("input", () => (entered[key] = Number(field.value)));
    return field;
  };
  shown = { state: make("div", { className: "row" }), group };
  showJob();
  return [
    make("h3", { textContent: ofCells ? "Split these cells" : "Split" }),
    make("div", { className: "row" }, button("split by PhenoGraph", () => start(group, ofCells), "S"),
      "k", entry("k", "neighbours", 1), "resolution", entry("resolution", "resolution", 0.1),
      "at least", entry("min_size", "smallest part", 1)),
    shown.state,
    ...(ofCells ? [] : thresholdRow(group)),
  ];
}

async function start(group, ofCells) {
  try {
    job = await postJson("/api/split", {
      who: model.who, group: group.id, ...(ofCells ? { cells: chosen().cells } : {}), ...entered,
    });
    const mine = job.id;
    while (job?.id === mine) {
      showJob();
      if (job.state !== "running") return;
      await new Promise((resolve) => setTimeout(resolve, 300));
      const told = await getJson(`/api/split/${mine}`);
      if (job?.id === mine && job.state === "running") job = told; // not cancelled meanwhile
    }
  } catch (error) {
    toast(error.message);
  }
}

async function cancel() {
  try {
    job = await postJson("/api/split/cancel", { job: job.id });
    showJob();
  } catch (error) {
    toast(error.message);
  }
}

function showJob() {
  const { state, group } = shown;
  if (job?.group !== group.id) {
    state.replaceChildren();
  } else if (job.state === "running") {
    // Changed in place: a button that is replaced under the mouse is not clicked.
    if (!state.querySelector("progress")) {
      state.replaceChildren(make("progress"), make("span"), button("cancel", cancel));
    }
    state.querySelector("progress").value = job.share;
    state.querySelector("span").textContent = `${job.message}, ${job.seconds.toFixed(0)} s`;
  } else if (job.state === "done") {
    const left = job.left ? `, ${number(job.left)} cells in smaller parts stay` : "";
    const apply = button(`make ${job.sizes.length} groups`, async () => {
      const before = new Set(model.labels.groups.map((g) => g.id));
      const kept = selectionKept();
      const told = await write("/api/split/apply", { job: job.id }, `split ${idText(group.id)}`);
      if (!told) return;
      job = null;
      if (kept()) selectGroups(told.groups.map((g) => g.id).filter((id) => !before.has(id)));
    });
    apply.disabled = job.sizes.length < 2;
    state.replaceChildren(`${job.sizes.length} parts: ${job.sizes.map(number).join(", ")}${left} `, apply,
      button("forget", () => ((job = null), showJob())));
  } else {
    state.replaceChildren(`${job.state}: ${job.message}`);
  }
}

function thresholdRow(group) {
  const marker = make("select", { ariaLabel: "marker of the threshold" });
  for (const name of model.study.markers) marker.append(new Option(name, name));
  const above = make("input", { type: "number", step: 0.05, ariaLabel: "threshold" });
  above.style.width = "62px";
  const told = make("span", { className: "quiet" });
  const count = async () => {
    [edge.marker, edge.above] = [marker.value, above.value];
    const { values, low, high } = await activation(marker.value);
    if (edge.marker !== marker.value) return; // another one was chosen meanwhile
    const place = model.byId.get(group.id)?.place;
    const least = ((Number(above.value) - low) / (high - low)) * 255;
    let found = 0;
    for (let i = 0; i < model.n; i++) if (model.codes[i] === place && values[i] > least) found++;
    told.textContent = `about ${number(found)} of ${number(group.count)} above`;
  };
  const preset = () => {
    above.value = model.study.positive_above[model.study.markers.indexOf(marker.value)].toFixed(2);
    count();
  };
  marker.addEventListener("change", preset);
  above.addEventListener("input", count);
  if (edge.marker) {
    [marker.value, above.value] = [edge.marker, edge.above];
    count();
  } else {
    above.value = model.study.positive_above[0].toFixed(2);
  }
  const act = () => write("/api/split_by_marker", { group: group.id, marker: marker.value, above: Number(above.value) }, "split");
  return [make("div", { className: "row" }, "or by ", marker, "above", above, button("split", act), told)];
}
