// Split a group: by PhenoGraph in the background, with progress and cancel, or at a threshold.
import { getJson, postJson, toast } from "./api.js";
import { button, make, number } from "./dom.js";
import { activation, chosen, idText, model, selectGroups, write } from "./model.js";

let job = null; // the last one that was started

export function splitSection(group, ofCells = false) {
  const entry = (value, label, step) => make("input", { type: "number", value, step, min: 0, ariaLabel: label, title: label });
  const [k, resolution, size] = [entry(30, "neighbours", 1), entry(1, "resolution", 0.1), entry(20, "smallest part", 1)];
  for (const input of [k, resolution, size]) input.style.width = "48px";
  const state = make("div", { className: "row" });
  const start = async () => {
    try {
      job = await postJson("/api/split", {
        who: model.who, group: group.id, ...(ofCells ? { cells: chosen().cells } : {}),
        k: Number(k.value), resolution: Number(resolution.value), min_size: Number(size.value),
      });
      watch();
    } catch (error) {
      toast(error.message);
    }
  };
  const watch = async () => {
    const mine = job.id;
    while (job?.id === mine && state.isConnected !== false) {
      showJob(state, group);
      if (job.state !== "running") return;
      await new Promise((resolve) => setTimeout(resolve, 300));
      try {
        job = await getJson(`/api/split/${mine}`);
      } catch (error) {
        toast(error.message);
        return;
      }
    }
  };
  if (job && job.group === group.id) setTimeout(job.state === "running" ? watch : () => showJob(state, group));
  return [
    make("h3", { textContent: ofCells ? "Split these cells" : "Split" }),
    make("div", { className: "row" }, button("split by PhenoGraph", start, "S"), "k", k, "resolution", resolution, "at least", size),
    state,
    ...(ofCells ? [] : thresholdRow(group)),
  ];
}

function showJob(state, group) {
  if (!job) return; // applied or forgotten meanwhile
  if (job.state === "running") {
    state.replaceChildren(
      make("progress", { value: job.share }), `${job.message}, ${job.seconds.toFixed(0)} s `,
      button("cancel", async () => {
        job = await postJson("/api/split/cancel", { job: job.id });
        showJob(state, group);
      }),
    );
  } else if (job.state === "done") {
    const left = job.left ? `, ${number(job.left)} cells in smaller parts stay` : "";
    const apply = button(`make ${job.sizes.length} groups`, async () => {
      const before = new Set(model.labels.groups.map((g) => g.id));
      const told = await write("/api/split/apply", { job: job.id }, `split ${idText(group.id)}`);
      if (!told) return;
      job = null;
      selectGroups(told.groups.map((g) => g.id).filter((id) => !before.has(id)));
    });
    apply.disabled = job.sizes.length < 2;
    state.replaceChildren(`${job.sizes.length} parts: ${job.sizes.map(number).join(", ")}${left} `, apply,
      button("forget", () => ((job = null), state.replaceChildren())));
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
    const { values, low, high } = await activation(marker.value);
    const place = model.byId.get(group.id)?.place;
    const edge = ((Number(above.value) - low) / (high - low)) * 255;
    let found = 0;
    for (let i = 0; i < model.n; i++) if (model.codes[i] === place && values[i] > edge) found++;
    told.textContent = `about ${number(found)} of ${number(group.count)} above`;
  };
  const preset = () => {
    above.value = model.study.positive_above[model.study.markers.indexOf(marker.value)].toFixed(2);
    count();
  };
  marker.addEventListener("change", preset);
  above.addEventListener("input", count);
  above.value = model.study.positive_above[0].toFixed(2);
  const act = () => write("/api/split_by_marker", { group: group.id, marker: marker.value, above: Number(above.value) }, "split");
  return [make("div", { className: "row" }, "or by ", marker, "above", above, button("split", act), told)];
}
