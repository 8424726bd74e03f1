// Which cells lie inside a polygon that was drawn in the UMAP.
import { model } from "./model.js";

export function cellsInside(polygon) {
  const xs = polygon.map((p) => p[0]);
  const ys = polygon.map((p) => p[1]);
  const [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const mask = new Uint8Array(model.n);
  const { umap } = model;
  for (let i = 0; i < model.n; i++) {
    const x = umap[2 * i];
    const y = umap[2 * i + 1];
    if (x < x0 || x > x1 || y < y0 || y > y1) continue;
    let inside = 0;
    for (let a = 0, b = xs.length - 1; a < xs.length; b = a++) {
      if (ys[a] > y !== ys[b] > y && x < ((xs[b] - xs[a]) * (y - ys[a])) / (ys[b] - ys[a]) + xs[a]) inside ^= 1;
    }
    mask[i] = inside;
  }
  return mask;
}
