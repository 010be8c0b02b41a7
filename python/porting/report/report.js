"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const rows = data.rows.map((values) => Object.fromEntries(data.columns.map((name, i) => [name, values[i]])));
  const compared = rows.flatMap((row, i) => (row.status === "compared" ? [i] : []));
  const byId = (id) => document.getElementById(id);
  const tree = byId("tree");
  const lines = rows.map((_, i) => byId("r" + i));
  const nodes = [...tree.querySelectorAll("details.node")];

  // ---- small helpers: text only, never markup
  function make(tag, attributes, ...children) {
    const drawn = ["svg", "rect", "text", "line", "title"].includes(tag);
    const element = drawn ? document.createElementNS(byId("drawing").namespaceURI, tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, value);
    for (const child of children) element.append(child);
    return element;
  }
  function show(value) {
    if (value === null || value === undefined) return "–";
    if (typeof value !== "number") return String(value);
    if (Number.isInteger(value) && Math.abs(value) < 1e6) return value.toLocaleString("en-US").replaceAll(",", "\u202f");
    if (value !== 0 && (Math.abs(value) < 1e-4 || Math.abs(value) >= 1e6)) return value.toExponential(3).replace(/\.?0+e/, "e");
    return String(Number(value.toPrecision(4)));
  }

  // ---- light and dark
  byId("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });

  // ---- the panel of one tensor
  function place(index, shape, dtype) {
    if (index === null || index === undefined || index < 0) return "–";
    if (dtype === "complex64") index = Math.floor(index / 2); // the two halves are counted one by one
    if (!Array.isArray(shape) || shape.length < 2) return "[" + index + "]";
    const at = [];
    for (let d = shape.length - 1; d >= 0; d--) {
      at.unshift(index % shape[d]);
      index = Math.floor(index / shape[d]);
    }
    return "[" + at.join(", ") + "]";
  }
  function bucketName(k) {
    if (k === 33) return "sign or NaN";
    if (k < 2) return String(k);
    return k < 4 ? 2 ** (k - 1) + "–" + (2 ** k - 1) : "≥ 2^" + (k - 1);
  }
  function histogram(counts) {
    const width = 360, height = 130, base = 100, top = 14;
    const last = Math.max(counts.length, 4);
    const most = Math.log10(1 + Math.max(...counts));
    const step = width / last;
    const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "how many elements are how many ulp apart" });
    for (let k = 0; k < last; k++) {
      const count = counts[k] || 0;
      const size = count ? Math.max(2, ((base - top) * Math.log10(1 + count)) / most) : 0;
      const colour = k === 0 ? "exact" : k < 4 ? "green" : k < 12 ? "amber" : "red";
      const bar = make("rect", { x: k * step + 1, y: base - size, width: Math.max(step - 2, 1), height: size, style: `fill:var(--${colour})` });
      bar.append(make("title", {}, `${bucketName(k)} ulp: ${show(count)} elements`));
      svg.append(bar);
      if (k % Math.ceil(last / 8) === 0 && k < 33) {
        const label = k < 2 ? String(k) : k < 11 ? String(2 ** (k - 1)) : "2^" + (k - 1);
        svg.append(make("text", { x: k * step + step / 2, y: base + 14, "text-anchor": "middle", class: "tick" }, label));
      }
    }
    svg.append(make("line", { x1: 0, x2: width, y1: base, y2: base, class: "grid" }));
    svg.append(make("text", { x: width / 2, y: height - 2, "text-anchor": "middle", class: "tick" }, "ulp, power-of-two buckets; heights are logarithmic"));
    return svg;
  }
  function table(pairs, left) {
    const body = make("table", { class: "facts" });
    for (const [key, value] of pairs) body.append(make("tr", {}, make("th", {}, key), make("td", left ? { class: "left" } : {}, value)));
    return body;
  }

  // ---- where the error is: one pixel a cell, a character each ("." none, "0" to "y" in octaves up to the greatest, "z" not a number)
  const levels = "0123456789abcdefghijklmnopqrstuvwxy";
  function colour(character) {
    if (character === ".") return [128, 128, 128, 26];
    if (character === "z") return [190, 40, 220, 255];
    const t = Math.max(0, (levels.indexOf(character) - 14) / 20); // twenty octaves of colour, a factor of a million
    const stops = [[47, 111, 222], [36, 160, 130], [240, 190, 50], [225, 90, 40], [150, 10, 30]];
    const k = Math.min(3, Math.floor(t * 4)), f = t * 4 - k;
    return [0, 1, 2].map((c) => Math.round(stops[k][c] + f * (stops[k + 1][c] - stops[k][c]))).concat(255);
  }
  function heat(picture, shape) {
    const [height, width, cells, top] = picture;
    const canvas = make("canvas", { width, height, "aria-label": "where the error is", role: "img" });
    const context = canvas.getContext("2d");
    const image = context.createImageData(width, height);
    for (let i = 0; i < cells.length; i++) image.data.set(colour(cells[i]), 4 * i);
    context.putImageData(image, 0, 0);
    canvas.style.aspectRatio = `${Math.max(width, 8)} / ${Math.max(Math.min(height * 1.6, width), 2)}`;
    const last = shape && shape.length ? shape[shape.length - 1] : 1;
    const rest = shape && shape.length ? shape.slice(0, -1).reduce((a, b) => a * b, 1) : 1;
    const said = make("div", { class: "ends" }, make("span", {}, "0"), make("span", { class: "said" }, `last axis (${show(last)})`), make("span", {}, show(last - 1)));
    canvas.addEventListener("mousemove", (event) => {
      const box = canvas.getBoundingClientRect();
      const c = Math.min(width - 1, Math.floor(((event.clientX - box.left) / box.width) * width));
      const r = Math.min(height - 1, Math.floor(((event.clientY - box.top) / box.height) * height));
      const character = cells[r * width + c];
      const size = character === "." ? "no error" : character === "z" ? "NaN or infinity on one side" : "up to " + show(top * 2 ** (levels.indexOf(character) - 34 + 0.5));
      said.children[1].textContent = `rows ${show(Math.floor((r * rest) / height))}…, columns ${show(Math.floor((c * last) / width))}…: ${size}`;
    });
    canvas.addEventListener("mouseleave", () => { said.children[1].textContent = `last axis (${show(last)})`; });
    const ramp = make("div", { class: "ramp" });
    ramp.style.background = `linear-gradient(90deg, ${[14, 19, 24, 29, 34].map((k) => `rgb(${colour(levels[k]).slice(0, 3).join(",")})`).join(", ")})`;
    const legend = make("div", {}, ramp, make("div", { class: "ends" }, make("span", {}, "≤ " + show(top / 2 ** 20)), make("span", {}, "|error|, logarithmic"), make("span", {}, show(top))));
    return make("div", { class: "heat" }, make("span", { class: "side" }, `other axes (${show(rest)})`), canvas, make("span", {}), said, make("span", {}), legend);
  }
  function worstTable(worst) {
    const body = make("table", { class: "facts worst" });
    body.append(make("tr", {}, ...["index", "expected", "actual", "error"].map((word) => make("th", {}, word))));
    for (const [index, expected, actual] of worst) {
      const error = typeof expected === "number" && typeof actual === "number" ? show(actual - expected) : "–";
      body.append(make("tr", {}, ...["[" + index.join(", ") + "]", show(expected), show(actual), error].map((text) => make("td", { class: "mono" }, text))));
    }
    return body;
  }
  function inherited(row) {
    const pairs = [];
    if (row.amplification !== null) pairs.push(["amplification", show(row.amplification) + " × its inputs' error"]);
    if (row.local) {
      const [unequal, maxAbs, maxUlp, scaled, nmse, pcc] = row.local;
      pairs.push(["own error (on the port's inputs)", `rel ${show(Math.sqrt(nmse))}, max abs ${show(maxAbs)}, max ulp ${show(maxUlp)}` + (scaled >= 0 ? `, err/(u·s) ${show(scaled)}` : "")]);
      pairs.push(["own unequal, PCC", show(unequal) + ", " + show(pcc)]);
      pairs.push(["with what was carried", "rel " + show(row.rel)]);
    }
    if (row.chained) pairs.push(["chained", row.chained[0] + ": " + row.chained[2]]);
    if (row.golden) pairs.push(["against float64", `reference ${show(row.golden[0])} u, port ${show(row.golden[1])} u (${show(row.golden[2])} ×)`]);
    return pairs;
  }
  let picked = null;
  function pick(index, scroll) {
    if (picked !== null) lines[picked].classList.remove("picked");
    picked = index;
    const row = rows[index];
    const line = lines[index];
    line.classList.add("picked");
    if (scroll) {
      for (let node = line.parentElement.closest("details"); node; node = node.parentElement.closest("details")) node.open = true;
      line.scrollIntoView({ block: "center" });
    }
    const panel = byId("detail");
    panel.replaceChildren(make("h3", { class: "mono" }, row.name));
    const verdict = row.status === "compared" ? data.words[row.band] + (row.passed ? ", passed" : ", failed") : row.status;
    panel.append(make("p", { class: "text-" + row.band }, verdict));
    if (row.reason) panel.append(make("p", { class: "quiet" }, row.reason));
    const facts = [["module", row.module || "(root)"], ["kind", row.kind || "–"], ["call, step", show(row.call) + ", " + show(row.step)]];
    if (row.shape) facts.push(["shape", "(" + row.shape.join(", ") + ")"]);
    if (row.dtype) facts.push(["dtype", row.dtype]);
    if (row.allowed !== null && row.allowed !== undefined) facts.push(["allowed", show(row.allowed)]);
    if (row.tolerance) facts.push(["judged by", row.tolerance]);
    panel.append(table(facts));
    const from = inherited(row);
    if (from.length) panel.append(make("h4", {}, "Where the error comes from"), table(from, true));
    if (row.num_elems === undefined || row.num_elems === null) return;
    if (row.picture) panel.append(make("h4", {}, "Where the error is"), heat(row.picture, row.shape));
    if (row.ulp_histogram && row.ulp_histogram.length) panel.append(make("h4", {}, "Distance in ulp"), histogram(row.ulp_histogram));
    panel.append(make("h4", {}, "Worst elements"));
    if (row.picture) panel.append(worstTable(row.picture[4]));
    panel.append(table([
      ["max abs " + show(row.max_abs), place(row.max_abs_idx, row.shape, row.dtype)],
      ["max ulp " + show(row.max_ulp), place(row.max_ulp_idx, row.shape, row.dtype)],
      ...(row.max_err_scale >= 0 ? [["err/(u·s) " + show(row.max_err_scale), place(row.max_err_scale_idx, row.shape, row.dtype)]] : []),
      ...(row.first_nonfinite_mismatch >= 0 ? [["first NaN or Inf that differs", place(row.first_nonfinite_mismatch, row.shape, row.dtype)]] : []),
    ]));
    panel.append(make("h4", {}, "Metrics"));
    panel.append(table([
      ["elements", show(row.num_elems)],
      ["unequal", show(row.num_unequal)],
      ["mean abs", show(row.mean_abs)],
      ["p99, p99.9 abs", show(row.p99_abs) + ", " + show(row.p999_abs)],
      ["max, mean rel", show(row.max_rel) + ", " + show(row.mean_rel)],
      ["mean signed ulp", show(row.mean_signed_ulp)],
      ["SQNR", show(row.sqnr_db) + " dB"],
      ["NMSE", show(row.nmse)],
      ["cosine", show(row.cosine)],
      ["PCC", show(row.pcc)],
      ["range expected", show(row.min_expected) + " … " + show(row.max_expected)],
      ["range actual", show(row.min_actual) + " … " + show(row.max_actual)],
      ["NaN expected, actual", show(row.num_nan_expected) + ", " + show(row.num_nan_actual)],
      ["Inf expected, actual", show(row.num_inf_expected) + ", " + show(row.num_inf_actual)],
    ]));
  }
  tree.addEventListener("click", (event) => {
    const line = event.target.closest(".row");
    if (line) pick(Number(line.dataset.row), false);
  });
  tree.addEventListener("keydown", (event) => {
    const line = event.target.closest(".row");
    if (!line || !["Enter", " ", "ArrowDown", "ArrowUp"].includes(event.key)) return;
    event.preventDefault();
    let index = Number(line.dataset.row);
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key] || 0;
    do index += step; while (step && lines[index] && lines[index].hidden);
    if (!lines[index]) return;
    pick(index, step !== 0);
    lines[index].focus();
  });
  for (const link of document.querySelectorAll(".goto")) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      if (link.dataset.row !== "") pick(Number(link.dataset.row), true);
    });
  }

  // ---- filter and search
  function matcher(text) {
    const regex = text.match(/^\/(.+)\/$/);
    if (regex) {
      try {
        const compiled = new RegExp(regex[1]);
        return (name) => compiled.test(name);
      } catch (error) {
        return () => false;
      }
    }
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    return (name) => words.every((word) => name.toLowerCase().includes(word));
  }
  function filter() {
    const text = byId("search").value.trim();
    const fits = matcher(text);
    const kind = byId("kind").value;
    const bands = new Set([...document.querySelectorAll("[data-band]")].filter((box) => box.checked).map((box) => box.dataset.band));
    let shown = 0;
    const alive = new Set();
    rows.forEach((row, i) => {
      const visible = bands.has(row.band) && (!kind || row.kind === kind) && fits(row.name);
      lines[i].hidden = !visible;
      if (!visible) return;
      shown++;
      for (let node = lines[i].parentElement; node !== tree && !alive.has(node); node = node.parentElement) alive.add(node);
    });
    const narrowed = shown < rows.length;
    for (const node of nodes) {
      node.hidden = !alive.has(node);
      if (narrowed && shown <= 400 && (text || kind || shown <= 100)) node.open = true;
    }
    byId("empty").hidden = shown > 0;
    byId("shown").textContent = narrowed ? `${show(shown)} of ${show(rows.length)} tensors` : `${show(rows.length)} tensors`;
  }
  let waiting = 0;
  byId("search").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(filter, 80);
  });
  byId("kind").addEventListener("change", filter);
  for (const box of document.querySelectorAll("[data-band]")) box.addEventListener("change", filter);
  byId("expand").addEventListener("click", () => nodes.forEach((node) => { node.open = true; }));
  byId("collapse").addEventListener("click", () => nodes.forEach((node) => { node.open = node.dataset.depth === "0"; }));

  // ---- the plot
  const tip = byId("tip");
  function nearest(svg, event) {
    const box = svg.getBoundingClientRect();
    const scale = Math.min(box.width / 1000, box.height / 210);
    const x = (event.clientX - box.left - (box.width - 1000 * scale) / 2) / scale;
    const n = Math.round(((x - 62) / (1000 - 62 - 12)) * (compared.length - 1));
    return compared[Math.max(0, Math.min(compared.length - 1, n))];
  }
  for (const svg of document.querySelectorAll("svg.plot")) {
    svg.addEventListener("mousemove", (event) => {
      const row = rows[nearest(svg, event)];
      const value = svg.dataset.plot === "ratio" ? (row.golden ? row.golden[2] : null) : row[svg.dataset.plot];
      tip.hidden = false;
      tip.textContent = `${row.name}: ${show(value)}`;
      const box = svg.parentElement.getBoundingClientRect();
      const right = event.clientX - box.left > box.width / 2;
      tip.style.left = right ? "auto" : event.clientX - box.left + 12 + "px";
      tip.style.right = right ? box.right - event.clientX + 12 + "px" : "auto";
      tip.style.top = event.clientY - box.top + 12 + "px";
    });
    svg.addEventListener("mouseleave", () => { tip.hidden = true; });
    svg.addEventListener("click", (event) => pick(nearest(svg, event), true));
  }
  for (const button of document.querySelectorAll("button[data-plot]")) {
    button.addEventListener("click", () => {
      for (const other of document.querySelectorAll("button[data-plot]")) other.classList.toggle("on", other === button);
      for (const svg of document.querySelectorAll("svg.plot")) svg.toggleAttribute("hidden", svg.dataset.plot !== button.dataset.plot);
    });
  }

  filter();
  const ulp = (i) => (rows[i].max_ulp === "NaN" ? Infinity : rows[i].max_ulp || 0);
  const worst = compared.reduce((best, i) => (best === null || ulp(i) > ulp(best) ? i : best), null);
  if (rows.length) pick(data.first ?? worst ?? 0, false);
  document.documentElement.dataset.ready = String(Math.round(performance.now()));
})();
