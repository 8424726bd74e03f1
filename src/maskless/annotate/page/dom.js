// Small helpers to make elements. Text is always set as text, never as markup.

export function make(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("aria") || key === "role" || key === "list") made.setAttribute(key.replace("aria", "aria-").toLowerCase(), value);
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made[key] = value;
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export const button = (text, act, title = "") => make("button", { type: "button", textContent: text, title, onclick: act });

let leave = () => null; // resolves the question that is open

// Opens the dialog; resolves to the label of the button that was pressed, or "" when it was closed
// or another question took its place.
export function ask(title, body, labels) {
  const dialog = document.getElementById("dialog");
  leave("");
  document.getElementById("dialog-title").textContent = title;
  document.getElementById("dialog-body").replaceChildren(...[body].flat());
  const menu = document.getElementById("dialog-menu");
  menu.replaceChildren(...labels.map((label) => make("button", { value: label, textContent: label })));
  dialog.returnValue = "";
  if (dialog.open) dialog.close();
  dialog.showModal();
  return new Promise((resolve) => {
    leave = resolve;
    // The event of the question before comes when this one is open.
    dialog.onclose = () => dialog.open || resolve(dialog.returnValue);
  });
}

export const when = (iso) => new Date(iso).toLocaleString("en-GB", { dateStyle: "short", timeStyle: "medium" });

export const briefly = (iso) => new Date(iso).toLocaleString("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });

const GROUPED = new Intl.NumberFormat("en");
export const number = (value) => GROUPED.format(value);
