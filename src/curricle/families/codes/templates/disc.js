"use strict";
(() => {
  const read = id => JSON.parse(document.getElementById(id).textContent);
  const by = id => document.getElementById("disc-" + id);
  const data = read("disc-data"), canvas = by("canvas"), pen = canvas.getContext("2d"), n = data.codes.length;
  const after = data.points, before = data.before || after;
  let levels = read("disc-levels");
  const deepest = Math.max(...data.depths);
  if (levels.length !== deepest) levels = Array.from({ length: deepest }, (_, k) => k + 1);
  const top = data.codes.map((_, i) => { let at = i; while (data.parents[at] >= 0) at = data.parents[at]; return at; });
  const roots = [...new Set(top)].sort((a, b) => Math.atan2(after[2 * a + 1], after[2 * a]) - Math.atan2(after[2 * b + 1], after[2 * b]));
  const order = data.depths.map((_, i) => i).sort((a, b) => data.depths[b] - data.depths[a]);
  const dark = matchMedia("(prefers-color-scheme: dark)"), still = matchMedia("(prefers-reduced-motion: reduce)");
  // The view: a hyperbolic shift that brings the point (fx, fy) to the middle, then a plain zoom around (cx, cy).
  const unit = 0.487; // half a view, in radii of the disc
  let spot = null; // [x, y] of a text that somebody else on the page has asked about
  let marks = []; // [place, share] of codes that somebody else on the page points at
  let share = 1, fx = 0, fy = 0, zoom = 1, cx = 0, cy = 0, chosen = -1, mode = "top", size = 0, place = new Float64Array(2 * n);
  const hue = i => (roots.indexOf(i) * 137.5 + 210) % 360; // neighbours far apart
  const hues = top.map(hue);
  const colour = i => {
    const light = dark.matches ? 70 : 48;
    if (mode === "top") return `hsl(${hues[i].toFixed(0)} 68% ${light - 8 * (roots.indexOf(top[i]) % 3)}%)`;
    if (mode === "level") return `hsl(212 70% ${dark.matches ? 82 - 11 * (data.depths[i] - 1) : 22 + 11 * (data.depths[i] - 1)}%)`;
    const [all, right] = data.tested[i];
    return all ? `hsl(${(right / all * 130).toFixed(0)} 72% ${light}%)` : dark.matches ? "#465160" : "#c3cad4";
  };
  const shift = (x, y, p = fx, q = fy) => { // (z - f) / (1 - conj(f) z), f = p + iq
    const a = x - p, b = y - q, c = 1 - (p * x + q * y), d = q * x - p * y, e = c * c + d * d;
    return [(a * c + b * d) / e, (b * c - a * d) / e];
  };
  const layOut = () => {
    for (let i = 0; i < n; i++) {
      const k = 2 * i, x = (before[k] + (after[k] - before[k]) * share) / 1e4, y = (before[k + 1] + (after[k + 1] - before[k + 1]) * share) / 1e4;
      const [u, v] = shift(x, y);
      place[k] = size / 2 + (u - cx) * zoom * size * unit;
      place[k + 1] = size / 2 - (v - cy) * zoom * size * unit;
    }
  };
  const radius = i => Math.max(1.6, (7.5 - 1.35 * data.depths[i]) * size / 720 * Math.min(2.2, Math.sqrt(zoom)));
  const draw = () => {
    const ratio = devicePixelRatio || 1, style = getComputedStyle(document.documentElement);
    size = canvas.clientWidth || 600;
    const high = canvas.clientHeight || size;
    if (canvas.width !== Math.round(size * ratio) || canvas.height !== Math.round(high * ratio)) { canvas.width = Math.round(size * ratio); canvas.height = Math.round(high * ratio); }
    const wide = size;
    size = Math.min(size, high);
    pen.setTransform(ratio, 0, 0, ratio, (wide - size) / 2 * ratio, (high - size) / 2 * ratio);
    pen.clearRect(-wide, -high, 3 * wide, 3 * high);
    layOut();
    pen.lineWidth = 1;
    pen.strokeStyle = style.getPropertyValue("--line");
    pen.beginPath();
    pen.arc(size / 2 - cx * zoom * size * unit, size / 2 + cy * zoom * size * unit, zoom * size * unit, 0, 7);
    pen.stroke();
    pen.globalAlpha = 0.55;
    pen.beginPath();
    for (let i = 0; i < n; i++) { const p = data.parents[i]; if (p >= 0) { pen.moveTo(place[2 * i], place[2 * i + 1]); pen.lineTo(place[2 * p], place[2 * p + 1]); } }
    pen.stroke();
    const near = new Set(chosen < 0 ? [] : line(chosen));
    for (const i of order) {
      pen.globalAlpha = chosen < 0 || near.has(i) || top[i] === top[chosen] ? 0.92 : 0.25;
      pen.fillStyle = colour(i);
      pen.beginPath();
      pen.arc(place[2 * i], place[2 * i + 1], radius(i), 0, 7);
      pen.fill();
    }
    pen.globalAlpha = 1;
    for (const [i, part] of marks) {
      pen.fillStyle = pen.strokeStyle = style.getPropertyValue("--ink");
      pen.beginPath();
      pen.arc(place[2 * i], place[2 * i + 1], radius(i) + 5 + 16 * Math.sqrt(part), 0, 7);
      pen.globalAlpha = 0.16;
      pen.fill();
      pen.globalAlpha = 0.8;
      pen.lineWidth = 1.2;
      pen.stroke();
      pen.globalAlpha = 1;
    }
    if (chosen >= 0) {
      pen.strokeStyle = pen.fillStyle = style.getPropertyValue("--ink");
      pen.lineWidth = 2;
      pen.beginPath();
      line(chosen).forEach((i, k) => pen[k ? "lineTo" : "moveTo"](place[2 * i], place[2 * i + 1]));
      pen.stroke();
      pen.beginPath();
      pen.arc(place[2 * chosen], place[2 * chosen + 1], radius(chosen) + 4, 0, 7);
      pen.stroke();
    }
    if (spot) { // a cross: no code looks like one
      const [u, v] = shift(...spot), x = size / 2 + (u - cx) * zoom * size * unit, y = size / 2 - (v - cy) * zoom * size * unit;
      canvas.dataset.text = `${Math.round(x)} ${Math.round(y)}`;
      for (const [wide, ink] of [[6, "--paper"], [2.5, "--bad"]]) {
        pen.lineWidth = wide;
        pen.strokeStyle = style.getPropertyValue(ink);
        pen.beginPath();
        for (const k of [-1, 1]) { pen.moveTo(x - 8, y - 8 * k); pen.lineTo(x + 8, y + 8 * k); }
        pen.stroke();
      }
    }
    label(style);
  };
  const label = style => { // codes of the level that there is room for, and the chosen one
    pen.font = "12px system-ui, sans-serif";
    pen.textAlign = "center";
    const pointed = new Set(marks.map(([i]) => i));
    const beside = (canvas.clientWidth - size) / 2, above = (canvas.clientHeight - size) / 2;
    const taken = [], depth = zoom > 9 ? 9 : zoom > 4.5 ? 4 : zoom > 2.2 ? 3 : zoom > 1.4 ? 2 : 1;
    for (const i of [...(chosen >= 0 ? [chosen] : []), ...marks.map(([i]) => i), ...order.slice().reverse()]) {
      if (i !== chosen && !pointed.has(i) && data.depths[i] > depth) continue;
      let x = place[2 * i], y = place[2 * i + 1] - radius(i) - 5;
      if (x < 0 || y < -12 || x > size || y > size + 12) continue;
      const whole = `${data.codes[i]} ${data.titles[i]}`, cut = whole.length > 34 ? whole.slice(0, 33) + "…" : whole;
      const name = zoom > 2.2 || i === chosen ? cut : data.codes[i];
      const half = pen.measureText(name).width / 2 + 3;
      x = Math.max(half - beside, Math.min(size + beside - half, x)); // whole, also at the edge
      if (y < 12 - above) y = place[2 * i + 1] + radius(i) + 16;
      if (i === chosen) canvas.dataset.label = [x - half + beside, y - 12 + above, x + half + beside, y + above].map(Math.round).join(" ");
      if (taken.some(t => Math.abs(t[0] - x) < t[2] + half && Math.abs(t[1] - y) < 15)) continue;
      taken.push([x, y, half]);
      pen.lineWidth = 3.5;
      pen.strokeStyle = style.getPropertyValue("--paper");
      pen.fillStyle = style.getPropertyValue("--ink");
      pen.strokeText(name, x, y);
      pen.fillText(name, x, y);
      if (taken.length > 45) break;
    }
  };
  const line = i => { const out = []; for (let at = i; at >= 0; at = data.parents[at]) out.push(at); return out; };
  const say = i => {
    if (i < 0) { by("said").textContent = "Point at a code, or search for one."; return; }
    const box = by("said");
    box.replaceChildren();
    const head = document.createElement("b");
    head.textContent = `${data.codes[i]} ${data.titles[i]}`;
    box.append(head);
    const above = line(i).slice(1).map(k => `${data.codes[k]} ${data.titles[k]}`);
    if (above.length) box.append(document.createElement("br"), "in " + above.join(", in "));
    if (data.tested && data.tested[i][0]) box.append(document.createElement("br"), `${data.tested[i][1]} of ${data.tested[i][0]} test texts coded right`);
  };
  const choose = (i, look, beside) => { // beside: a point that the view has to hold as well
    chosen = i;
    say(i);
    if (look && i >= 0) {
      const x = after[2 * i] / 1e4, y = after[2 * i + 1] / 1e4, [s, t] = beside || [x, y];
      const f = [(x + s) / 2 * 0.75, (y + t) / 2 * 0.75], [a, b] = shift(x, y, ...f), [c, d] = shift(s, t, ...f);
      const apart = Math.max(Math.abs(a - c), Math.abs(b - d)) / 2, most = 0.4 / unit / apart; // two tenths of the view are its margin
      glide(...f, Math.min(Math.max(zoom, 1.3), most), ...(beside ? [(a + c) / 2, (b + d) / 2] : [0, 0]));
    } else draw();
    canvas.dataset.chosen = i < 0 ? "" : data.codes[i];
  };
  let frame = 0;
  const glide = (x, y, z, u, v, s = share) => {
    cancelAnimationFrame(frame);
    const from = [fx, fy, Math.log(zoom), cx, cy, share], to = [x, y, Math.log(z), u, v, s], start = performance.now();
    const tick = now => {
      const t = still.matches ? 1 : Math.min(1, Math.max(0, (now - start) / 450)), e = t * t * (3 - 2 * t);
      [fx, fy, zoom, cx, cy, share] = from.map((a, k) => a + (to[k] - a) * e);
      zoom = Math.exp(zoom);
      canvas.dataset.zoom = zoom.toFixed(3);
      draw();
      if (t < 1) frame = requestAnimationFrame(tick);
    };
    tick(start);
    if (!still.matches) frame = requestAnimationFrame(tick);
  };
  const zoomBy = (factor, x = 0, y = 0) => { // around a point of the view, from -1 to 1
    const z = Math.min(60, Math.max(1, zoom * factor));
    cx += x / zoom - x / z;
    cy += y / zoom - y / z;
    if (z === 1) cx = cy = 0;
    zoom = z;
    canvas.dataset.zoom = zoom.toFixed(3);
    draw();
  };
  const at = event => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left - (box.width - size) / 2, event.clientY - box.top - (box.height - size) / 2];
  };
  const nearest = (x, y) => {
    let best = -1, least = 196;
    for (let i = 0; i < n; i++) { const d = (place[2 * i] - x) ** 2 + (place[2 * i + 1] - y) ** 2; if (d < least) { least = d; best = i; } }
    return best;
  };
  let held = null, moved = false;
  canvas.addEventListener("pointerdown", event => { held = at(event); moved = false; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointermove", event => {
    const [x, y] = at(event);
    if (!held) { const i = nearest(x, y); if (i !== chosen) { chosen = i; say(i); draw(); } return; }
    const dx = x - held[0], dy = y - held[1];
    if (Math.abs(dx) + Math.abs(dy) > 2) moved = true;
    cx -= dx / (zoom * size * unit);
    cy += dy / (zoom * size * unit);
    held = [x, y];
    draw();
  });
  canvas.addEventListener("pointerup", event => { if (held && !moved) choose(nearest(...at(event)), true); held = null; });
  canvas.addEventListener("pointerleave", () => { if (!held && !by("find").value && !marks.length && chosen >= 0) { chosen = -1; say(-1); draw(); } });
  canvas.addEventListener("wheel", event => {
    event.preventDefault();
    const [x, y] = at(event);
    zoomBy(Math.exp(-event.deltaY * 0.0016), (x / size - 0.5) / unit, (0.5 - y / size) / unit);
  }, { passive: false });
  const keys = { "+": () => zoomBy(1.35), "=": () => zoomBy(1.35), "-": () => zoomBy(1 / 1.35), "0": () => home(), ArrowLeft: () => pan(-1, 0), ArrowRight: () => pan(1, 0), ArrowUp: () => pan(0, 1), ArrowDown: () => pan(0, -1) };
  const pan = (x, y) => { cx += 0.12 * x / zoom; cy += 0.12 * y / zoom; draw(); };
  const home = () => { chosen = -1; say(-1); by("find").value = ""; by("found").replaceChildren(); glide(0, 0, 1, 0, 0); };
  canvas.addEventListener("keydown", event => { if (keys[event.key]) { event.preventDefault(); keys[event.key](); } });
  by("in").addEventListener("click", () => zoomBy(1.5));
  by("out").addEventListener("click", () => zoomBy(1 / 1.5));
  by("home").addEventListener("click", home);
  for (const which of ["before", "after"]) {
    const button = by(which);
    if (button) button.addEventListener("click", () => {
      by("before").setAttribute("aria-pressed", which === "before");
      by("after").setAttribute("aria-pressed", which === "after");
      glide(fx, fy, zoom, cx, cy, which === "after" ? 1 : 0);
    });
  }
  by("colour").addEventListener("change", event => { mode = event.target.value; legend(); draw(); });
  by("find").addEventListener("input", event => {
    const asked = event.target.value.trim().toLowerCase(), found = [];
    if (asked) for (let i = 0; i < n && found.length < 40; i++) if (data.codes[i].toLowerCase().startsWith(asked) || data.titles[i].toLowerCase().includes(asked)) found.push(i);
    by("found").replaceChildren(...found.map(i => {
      const row = document.createElement("li"), button = document.createElement("button");
      button.type = "button";
      button.textContent = `${data.codes[i]} ${data.titles[i]}`;
      button.addEventListener("click", () => choose(i, true));
      row.append(button);
      return row;
    }));
    if (found.length) choose(found[0], false); else { chosen = -1; by("said").textContent = asked ? "No code or title has that." : "Point at a code, or search for one."; draw(); }
  });
  by("find").addEventListener("keydown", event => { if (event.key === "Enter" && chosen >= 0) choose(chosen, true); });
  const legend = () => {
    const rows = mode === "top" ? roots.slice().sort((a, b) => a - b).map(i => [colour(i), `${data.codes[i]} ${data.titles[i]}`])
      : mode === "level" ? levels.map((name, k) => [colour(data.depths.indexOf(k + 1)), `level ${name}`])
      : [[`hsl(130 72% 45%)`, "all coded right"], ["hsl(65 72% 45%)", "half"], ["hsl(0 72% 45%)", "none"], [dark.matches ? "#465160" : "#c3cad4", "no test text"]];
    by("legend").replaceChildren(...rows.map(([paint, name]) => {
      const row = document.createElement("li"), mark = document.createElement("span");
      mark.className = "swatch";
      mark.style.background = paint;
      row.append(mark, name);
      return row;
    }));
  };
  // {marks: [{way: a code and those above it, share}], chosen: which of them to go to}: of codes that are not drawn, the nearest one above is.
  document.addEventListener("disc-marks", event => {
    const at = way => way.map(code => data.codes.indexOf(code)).find(i => i >= 0) ?? -1;
    const found = event.detail.marks.map(one => [at(one.way), one.share]);
    marks = found.filter(([i]) => i >= 0);
    spot = event.detail.text || null;
    canvas.dataset.marks = marks.map(([i]) => data.codes[i]).join(" ");
    const to = found[event.detail.chosen];
    by("text").hidden = !spot;
    if (to && to[0] >= 0) choose(to[0], true, spot); else { chosen = -1; say(-1); draw(); }
  });
  dark.addEventListener("change", () => { legend(); draw(); });
  new ResizeObserver(draw).observe(canvas);
  canvas.dataset.zoom = "1.000";
  legend();
  draw();
})();
