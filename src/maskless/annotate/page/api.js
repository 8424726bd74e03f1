// Talking to the server: JSON and bytes in, JSON out, one shape of errors.

export class ServerError extends Error {
  constructor(kind, message) {
    super(message);
    this.kind = kind;
  }
}

async function answer(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("gone", "the server does not answer. Is 'maskless annotate' still running?");
  }
  if (response.ok) return response;
  let content = null;
  try {
    content = await response.json();
  } catch {
    // No JSON: the status has to do.
  }
  throw new ServerError(content?.error?.kind ?? "fault", content?.error?.message ?? `error ${response.status}`);
}

export async function getJson(path, signal) {
  return (await answer(path, { signal })).json();
}

export async function getBytes(path, signal) {
  const response = await answer(path, { signal });
  return { buffer: await response.arrayBuffer(), headers: response.headers };
}

export async function post(path, body, signal) {
  return answer(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-Maskless": "1" },
    body: JSON.stringify(body),
    signal,
  });
}

export async function postJson(path, body, signal) {
  return (await post(path, body, signal)).json();
}

export function toast(message, good = false) {
  const line = document.createElement("div");
  line.className = good ? "toast good" : "toast";
  line.textContent = message;
  document.getElementById("toasts").append(line);
  setTimeout(() => line.remove(), good ? 4000 : 9000);
}

// A set of cells as base64 of bits, lowest bit first.
export function bitsOf(mask) {
  const bytes = new Uint8Array(Math.ceil(mask.length / 8));
  for (let i = 0; i < mask.length; i++) if (mask[i]) bytes[i >> 3] |= 1 << (i & 7);
  let text = "";
  for (let i = 0; i < bytes.length; i += 32768) {
    text += String.fromCharCode.apply(null, bytes.subarray(i, i + 32768));
  }
  return btoa(text);
}
