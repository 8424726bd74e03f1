// Up to six markers in colours with contrast, for the tissue and the gallery.
import { getJson, toast } from "./api.js";
import { rgb } from "./colours.js";
import { button } from "./dom.js";
import { emit, model, remember } from "./model.js";

const FREE = ["#ff2fd0", "#19e619", "#ffd500", "#00d8ff", "#ff5a1f", "#b9a5ff"];

// What the tissue and the gallery show: {channel, name, color, low, high, auto, top}
export const channels = [];

export async function startChannels() {
  const wanted = model.settings.channels ?? model.study.telling.map((name) => ({ name }));
  for (const { name, color, low, high } of wanted) add(await load(name, color, low, high));
  drawControls();
}

function add(channel) {
  if (channel && channels.length < 6) channels.push(channel);
}

async function load(name, color, low, high) {
  const number = model.study.channels.findIndex((channel) => channel.name === name);
  if (number < 0) return null;
  try {
    const scale = await getJson(`/api/channel/${number}`);
    const told = model.study.channels[number].color;
    const taken = channels.map((channel) => channel.color);
    const free = FREE.find((colour) => !taken.includes(colour)) ?? FREE[0];
    const given = color ?? (told && !taken.includes(told) ? told : free);
    return {
      number, name, color: given, top: scale.top, autoLow: scale.low, autoHigh: scale.high,
      low: low ?? scale.low, high: high ?? scale.high, shown: true,
    };
  } catch (error) {
    toast(error.message);
    return null;
  }
}

function keep() {
  remember("channels", channels.map(({ name, color, low, high }) => ({ name, color, low, high })));
}

function drawControls() {
  const box = document.getElementById("channels");
  box.replaceChildren();
  channels.forEach((channel, place) => {
    const item = document.createElement("span");
    item.className = channel.shown ? "channel" : "channel off";
    const shown = Object.assign(document.createElement("input"), { type: "checkbox", checked: channel.shown });
    shown.title = `Shift+${place + 1}: show ${channel.name} or not`;
    shown.setAttribute("aria-label", `show ${channel.name}`);
    shown.addEventListener("change", () => toggleChannel(place));
    const colour = Object.assign(document.createElement("input"), { type: "color", value: channel.color });
    colour.setAttribute("aria-label", `colour of ${channel.name}`);
    colour.addEventListener("input", () => ((channel.color = colour.value), keep(), emit("channels")));
    const select = document.createElement("select");
    select.setAttribute("aria-label", "channel");
    select.title = channel.name;
    for (const { name } of model.study.channels) select.append(new Option(name, name));
    select.value = channel.name;
    select.addEventListener("change", () => replace(channel, select.value));
    const tune = labelled("◐", `contrast of ${channel.name}`, () => {
      channel.tuned = !channel.tuned;
      drawControls();
    });
    const gone = labelled("×", `remove ${channel.name}`, () => {
      channels.splice(place, 1);
      changed();
    });
    item.append(shown, colour, select, tune, gone);
    if (channel.tuned) item.append(contrast(channel));
    box.append(item);
  });
  if (channels.length < 6 && model.study.channels.some((c) => model.study.images[0] && c)) {
    box.append(labelled("+ marker", "add a marker", async () => {
      const free = model.study.channels.find((c) => !channels.some((own) => own.name === c.name));
      const made = free && (await load(free.name));
      if (!channels.some((own) => own.name === made?.name)) add(made);
      changed();
    }));
  }
}

export function toggleChannel(place) {
  if (!channels[place]) return;
  channels[place].shown = !channels[place].shown;
  drawControls();
  emit("channels");
}

// Other channels may come and go until the answer is there.
async function replace(channel, name) {
  channel.wanted = name;
  const made = await load(name, channel.color);
  if (channel.wanted !== name) return;
  const place = channels.indexOf(channel);
  if (made && place >= 0) channels[place] = made;
  changed();
}

function changed() {
  keep();
  drawControls();
  emit("channels");
}

// Two sliders and "auto" behind the channel's buttons.
function contrast(channel) {
  const box = Object.assign(document.createElement("span"), { className: "tune" });
  const slider = (key) => {
    const made = Object.assign(document.createElement("input"), {
      type: "range", min: 0, max: 255, value: Math.round((channel[key] / channel.top) * 255),
    });
    made.style.width = "64px";
    made.setAttribute("aria-label", key === "low" ? "black up to" : "full colour from");
    made.addEventListener("input", () => {
      channel[key] = (Number(made.value) / 255) * channel.top;
      if (channel.high <= channel.low) channel.high = channel.low + channel.top / 255;
      emit("channels");
    });
    made.addEventListener("change", keep);
    return made;
  };
  const auto = labelled("auto", "contrast from the images", () => {
    [channel.low, channel.high] = [channel.autoLow, channel.autoHigh];
    changed();
  });
  box.append(slider("low"), slider("high"), auto);
  return box;
}

// A table from bytes to light, weak light held back as in the report's figures.
export function lights() {
  return channels.map((channel) => {
    const [r, g, b] = rgb(channel.color);
    const table = new Float32Array(256);
    if (!channel.shown) return { r, g, b, table };
    for (let v = 0; v < 256; v++) {
      const share = ((v / 255) * channel.top - channel.low) / Math.max(channel.high - channel.low, 1e-6);
      table[v] = Math.min(Math.max(share, 0), 1) ** 1.4;
    }
    return { r, g, b, table };
  });
}

// Planes of bytes added up as lights; where they are too bright for the screen, hue is kept.
export function composite(planes, size, out, shown = lights()) {
  for (let i = 0; i < size; i++) {
    let [r, g, b] = [0, 0, 0];
    for (let c = 0; c < planes.length; c++) {
      const light = shown[c].table[planes[c][i]];
      if (light > 0) {
        r += light * shown[c].r;
        g += light * shown[c].g;
        b += light * shown[c].b;
      }
    }
    const most = Math.max(r, g, b, 255) / 255;
    out[4 * i] = r / most;
    out[4 * i + 1] = g / most;
    out[4 * i + 2] = b / most;
    out[4 * i + 3] = 255;
  }
}

function labelled(text, label, act) {
  const made = button(text, act, label);
  made.setAttribute("aria-label", label);
  return made;
}
