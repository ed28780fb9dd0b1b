"use strict";
(() => {
  const show = { share: v => (v >= 0.9995 && v < 1 ? "> 99.9" : v > 0 && v < 0.0005 ? "< 0.1" : (100 * v).toFixed(1)) + " %", number: v => v.toFixed(4).replace(/0+$/, "").replace(/\.$/, ""), count: v => Math.round(v).toLocaleString("en") };
  const svg = (name, attributes, text) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const key in attributes) node.setAttribute(key, attributes[key]);
    if (text !== undefined) node.textContent = text;
    return node;
  };
  for (const box of document.querySelectorAll("[data-trade]")) {
    const key = box.dataset.trade, trade = JSON.parse(document.getElementById(key + "-data").textContent);
    const slider = document.getElementById(key + "-slider"), group = document.getElementById(key + "-group");
    const chart = box.querySelector("svg"), reading = [...box.querySelectorAll(".reading dd")], command = document.getElementById(key + "-command");
    const L = 52, R = 548, T = 12, B = 206;
    const ys = trade.groups.flatMap(g => g.points.map(p => p[2])), top = Math.max(0.01, ...ys), low = trade.from_zero ? 0 : Math.min(...ys);
    const X = x => L + x * (R - L), Y = y => B - (y - low) / (top - low || 1) * (B - T);
    const draw = () => {
      const points = trade.groups[group ? +group.value : 0].points;
      slider.max = points.length - 1;
      const at = Math.min(+slider.value, points.length - 1), p = points[at];
      chart.replaceChildren();
      for (let k = 0; k <= 4; k++) {
        const y = low + (top - low) * k / 4;
        chart.append(svg("line", { class: "grid", x1: L, x2: R, y1: Y(y), y2: Y(y) }), svg("text", { class: "tick", x: L - 6, y: Y(y) + 4, "text-anchor": "end" }, show.share(y)));
        chart.append(svg("text", { class: "tick", x: X(k / 4), y: B + 16, "text-anchor": "middle" }, 25 * k + " %"));
      }
      chart.append(svg("text", { class: "tick", x: (L + R) / 2, y: 237, "text-anchor": "middle" }, trade.x_label), svg("text", { class: "tick", x: L + 4, y: T + 8 }, trade.y_label));
      chart.append(svg("path", { class: "line s0", d: "M" + points.map(q => X(q[1]).toFixed(1) + " " + Y(q[2]).toFixed(1)).join("L") }));
      chart.append(svg("line", { class: "mark", x1: X(p[1]), x2: X(p[1]), y1: T, y2: B }), svg("circle", { class: "dot s0", cx: X(p[1]), cy: Y(p[2]), r: 6 }));
      trade.columns.forEach((column, k) => { reading[k].textContent = p[k] === null ? "–" : show[column.kind](p[k]); });
      slider.setAttribute("aria-valuetext", trade.columns.map((column, k) => column.name + " " + reading[k].textContent).join(", "));
      if (command) command.textContent = trade.command.replace("{0}", p[0].toFixed(4));
    };
    slider.addEventListener("input", draw);
    if (group) group.addEventListener("change", draw);
    draw();
  }
})();
