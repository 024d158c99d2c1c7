// The report's script: colours, sortable and filterable tables, charts with buttons for methods, cells. No library but Vega.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const one = (selector, within = document) => within.querySelector(selector);

  /** An element; text children are text, never markup. */
  function make(name, attributes = {}, ...children) {
    const svg = ["svg", "path", "line", "polyline", "rect", "text"].includes(name);
    const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value === true ? "" : value);
    }
    element.append(...children.flat().filter((child) => child !== null && child !== undefined));
    return element;
  }
  const say = (text) => { document.getElementById("live").textContent = text; };

  // Colours: as the system, light or dark.
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const themes = document.getElementById("theme");
  // Pages from disk have no storage in some browsers.
  const stored = { get() { try { return localStorage.getItem("thinet-theme"); } catch { return null; } },
    set(value) { try { localStorage.setItem("thinet-theme", value); } catch { /* not remembered */ } } };
  const isDark = () => (themes.value === "auto" ? system.matches : themes.value === "dark");
  function applyTheme() {
    if (themes.value === "auto") delete root.dataset.theme; else root.dataset.theme = themes.value;
  }
  themes.value = ["light", "dark"].includes(stored.get()) ? stored.get() : "auto";
  applyTheme();
  themes.addEventListener("change", () => { stored.set(themes.value); applyTheme(); redraw(); });
  system.addEventListener("change", () => redraw());

  // Tables.
  const collator = new Intl.Collator("en", { numeric: true });
  const valueOf = (cell) => (cell.dataset.sort === undefined ? cell.textContent : Number(cell.dataset.sort));
  const isMissing = (cell) => cell.classList.contains("number") && cell.dataset.sort === undefined;

  function sortTable(table, at, direction) {
    const body = table.tBodies[0];
    const rows = table.thinetRows.slice();
    if (direction !== 0) {
      rows.sort((a, b) => {
        const [left, right] = [a.cells[at], b.cells[at]];
        // Rows without a value stay last in both directions.
        if (isMissing(left) !== isMissing(right)) return isMissing(left) ? 1 : -1;
        const [x, y] = [valueOf(left), valueOf(right)];
        const order = typeof x === "number" && typeof y === "number" ? x - y : collator.compare(x, y);
        return direction * order;
      });
    }
    body.append(...rows);
  }

  function enhance(table) {
    if (table.thinetRows) return;
    table.thinetRows = [...table.tBodies[0].rows];
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, at) => {
      const title = head.textContent;
      const button = make("button", { type: "button" }, title);
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const next = { none: "ascending", ascending: "descending", descending: "none" }[head.getAttribute("aria-sort") || "none"];
        for (const other of heads) other.removeAttribute("aria-sort");
        if (next !== "none") head.setAttribute("aria-sort", next);
        sortTable(table, at, { none: 0, ascending: 1, descending: -1 }[next]);
        say(next === "none" ? "In the order of the file" : `Sorted by ${title}, ${next}`);
      });
    });
    if (table.thinetRows.length > 6) addFilter(table, heads);
  }

  function addFilter(table, heads) {
    const search = make("input", { type: "search", placeholder: "words or numbers" });
    const count = make("output", { class: "count" });
    const choices = [];
    heads.forEach((head, at) => {
      if (head.dataset.choice === undefined) return;
      const values = [...new Set(table.thinetRows.map((row) => row.cells[at].textContent))];
      if (values.length < 2 || values.length > 40) return;
      const select = make("select", {}, make("option", { value: "" }, "all"), values.map((value) => make("option", { value: `=${value}` }, value || "none")));
      choices.push({ at, select, label: make("label", {}, `${head.textContent} `, select) });
    });
    const apply = () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of table.thinetRows) {
        const text = [...row.cells].map((cell) => cell.textContent.toLowerCase());
        // Each word in some column: numbers from their beginning, words anywhere.
        const found = words.every((word) => text.some((cell) => (/^[\d.−+-]/.test(word) ? cell.startsWith(word) : cell.includes(word))));
        const chosen = choices.every(({ at, select }) => !select.value || `=${row.cells[at].textContent}` === select.value);
        row.hidden = !(found && chosen);
        shown += row.hidden ? 0 : 1;
      }
      count.textContent = `${shown} of ${table.thinetRows.length} rows`;
    };
    search.addEventListener("input", apply);
    choices.forEach(({ select }) => select.addEventListener("change", apply));
    const bar = make("div", { class: "filter", role: "group", "aria-label": "Filter the rows" },
      make("label", {}, "Filter ", search), choices.map(({ label }) => label), count);
    table.closest(".scroll").before(bar);
    apply();
  }
  for (const table of all("table[data-table]")) {
    const closed = table.closest("details:not([open])");
    if (closed) closed.addEventListener("toggle", () => enhance(table)); else enhance(table);
  }

  // Methods that are hidden, by study.
  const hidden = new Map();
  const hiddenOf = (study) => hidden.get(study) || hidden.set(study, new Set()).get(study);
  const SHAPES = {
    circle: "M19 3.5a4.5 4.5 0 1 0 .01 0Z", square: "M15 4h8v8h-8Z", "triangle-up": "M19 3l5 9h-10Z", "triangle-down": "M19 13l5-9h-10Z",
    "triangle-left": "M14 8l9-5v10Z", "triangle-right": "M24 8l-9-5v10Z", diamond: "M19 2.5l4.5 5.5-4.5 5.5-4.5-5.5Z",
    cross: "M17.3 3h3.4v3.3H24v3.4h-3.3V13h-3.4V9.7H14V6.3h3.3Z",
  };
  const ON_DARK = { "#000000": "#f2f2f2", "#0072b2": "#3a97d3", "#332288": "#9c8cff", "#661100": "#d9785f", "#882255": "#d96ba0", "#7f7f7f": "#9a9a9a" };
  const tone = (colour) => (isDark() ? ON_DARK[String(colour).toLowerCase()] || colour : colour);

  function drawLegends() {
    for (const place of all("[data-legend]")) {
      const study = place.dataset.legend;
      const methods = data.methods[study] || [];
      const gone = hiddenOf(study);
      const focused = place.contains(document.activeElement) ? document.activeElement.dataset.method : null;
      const buttons = methods.map(({ label, colour, dash, shape }) => {
        const sample = make("svg", { width: 38, height: 16, viewBox: "0 0 38 16", "aria-hidden": "true" },
          dash ? make("line", { x1: 0, x2: 38, y1: 8, y2: 8, stroke: tone(colour), "stroke-width": 2, "stroke-dasharray": dash.join(" ") }) : null,
          make("path", { d: SHAPES[shape] || SHAPES.circle, fill: tone(colour) }));
        const button = make("button", { type: "button", "aria-pressed": String(!gone.has(label)), "data-method": label }, sample, label);
        button.addEventListener("click", () => {
          if (!gone.delete(label)) gone.add(label);
          say(`${label} ${gone.has(label) ? "hidden" : "shown"}`);
          drawLegends();
          redraw(study);
        });
        return button;
      });
      if (gone.size > 0) {
        const every = make("button", { type: "button", class: "all", "data-method": "" }, "Show all");
        every.addEventListener("click", () => { gone.clear(); drawLegends(); redraw(study); });
        buttons.push(every);
      }
      place.replaceChildren(...buttons);
      if (focused !== null) (buttons.find((button) => button.dataset.method === focused) || buttons[0])?.focus();
    }
  }

  // Charts.
  const clone = (value) => JSON.parse(JSON.stringify(value));
  const paper = () => getComputedStyle(document.body).getPropertyValue("--paper").trim();

  /** Colours that suit the page. Texts whose colour depends on the field below them stay. */
  function recolour(value) {
    if (Array.isArray(value)) return value.map(recolour);
    if (value === null || typeof value !== "object") {
      if (value === data.ink) return "#e6e6e2";
      if (value === data.reference) return "#a8aaa8";
      if (value === "white") return paper();
      return typeof value === "string" && /^#[0-9a-f]{6}$/i.test(value) ? tone(value) : value;
    }
    if (value.condition) return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, key === "values" ? item : recolour(item)]));
  }

  function config() {
    const given = clone(data.config);
    const themed = isDark() ? recolour(given) : given;
    themed.background = "transparent";
    themed.padding = 4;
    if (isDark()) themed.axis.gridColor = "#2f353c";
    themed.font = getComputedStyle(document.body).fontFamily;
    return themed;
  }

  /** Without the rows and labels of hidden methods. */
  function without(value, gone) {
    if (Array.isArray(value)) return value.map((item) => without(item, gone));
    if (value === null || typeof value !== "object") return value;
    const kept = {};
    for (const [key, item] of Object.entries(value)) {
      if (key === "values" && Array.isArray(item)) kept[key] = item.filter((row) => !gone.has(row.method));
      else if ((key === "y" || key === "xOffset") && item && item.field === "method" && item.scale?.domain) {
        kept[key] = { ...item, scale: { ...item.scale, domain: item.scale.domain.filter((label) => !gone.has(label)) } };
      } else kept[key] = without(item, gone);
    }
    return kept;
  }

  /** As many panels side by side as there is room for. */
  function fit(spec, width) {
    if (spec.vconcat) spec.vconcat = spec.vconcat.map((view) => fit(view, width));
    const panels = spec.concat || spec.hconcat;
    if (!panels) return spec;
    const down = panels[0].encoding?.y;
    const named = down && down.type === "nominal";
    const most = Math.max(...panels.map((panel) => panel.width || 0));
    const [room, each] = named ? [165, most + 24] : [0, most + 85];
    const columns = Math.max(1, Math.min(spec.columns || panels.length, Math.floor((width - room + 20) / each)));
    const narrow = columns === 1 ? Math.max(170, width - (named ? room + 10 : 85)) : most;
    panels.forEach((panel, at) => {
      const x = panel.encoding?.x || panel.layer?.at(-1)?.encoding?.x;
      if (x?.type === "quantitative" && panel.width > narrow) panel.width = narrow;
      // The fields of a heat map may shrink a little; beyond that it scrolls.
      else if (panel.width > narrow) {
        panel.width = Math.max(narrow, 0.7 * panel.width);
        for (const layer of panel.layer || []) if (layer.mark?.type === "text") layer.mark.fontSize = 11;
      }
      const y = panel.encoding?.y;
      if (named && at % columns === 0 && y && y.axis === null) y.axis = clone(down.axis);
    });
    delete spec.hconcat;
    return { ...spec, concat: panels, columns };
  }

  function explorerSpec(place) {
    const { points, measures, phases, dense, spec: template, variants, seeds } = data.explorers[place.dataset.explorer];
    const choice = Object.fromEntries(all("[data-choose]", place).map((select) => [select.dataset.choose, select.value]));
    const measure = measures.find(({ key }) => key === choice.measure);
    const phase = phases.find(({ key }) => key === choice.phase);
    const xs = { flops: "FLOPs kept, % of the dense net", params: "parameters kept, % of the dense net", keep_rate: "keep rate" };
    const limit = choice.measure === "loss" ? [0, Infinity] : [0, 100];
    const [means, single, missing] = [[], [], []];
    for (const point of points) {
      if (variants.length > 0 && point.variant !== choice.variant) continue;
      const value = point.values[`${choice.phase}_${choice.measure}`];
      const common = { method: point.method, keep_rate: point.keep_rate, flops: point.flops, params: point.params, x: point[choice.x] };
      if (!value) { missing.push(`${point.method} at ${point.keep_rate}`); continue; }
      const [mean, std, n] = value.stat;
      const digits = choice.measure === "loss" ? 3 : 2;
      const row = { ...common, mean, n, cell: value.seeds[0][1], shown: std === null ? `${mean.toFixed(digits)} (one seed)` : `${mean.toFixed(digits)} ± ${std.toFixed(digits)}` };
      if (std !== null) { row.low = Math.max(limit[0], mean - std); row.high = Math.min(limit[1], mean + std); }
      means.push(row);
      if (n > 1) for (const [seed, cell, name] of value.seeds) single.push({ ...common, value: seed, cell, seed: name });
    }
    const spec = clone(template);
    spec.encoding.x.title = xs[choice.x];
    for (const layer of spec.layer) if (layer.encoding.y?.field) layer.encoding.y.title = measure.title;
    const stat = dense[choice.measure];
    const text = stat ? `dense ${stat[0].toFixed(choice.measure === "loss" ? 2 : 1)}` : "";
    const gone = hiddenOf(place.dataset.explorer);
    const shown = (rows) => rows.filter((row) => !gone.has(row.method));
    spec.datasets = { means: shown(means), seeds: shown(single), dense: stat ? [{ dense: stat[0], text }] : [] };
    const values = [...spec.datasets.means.flatMap((row) => [row.low ?? row.mean, row.high ?? row.mean, row.mean]),
      ...spec.datasets.seeds.map((row) => row.value), ...(stat ? [stat[0]] : [])];
    const domain = [Math.min(...values), Math.max(...values)];
    const margin = Math.max(0.04 * (domain[1] - domain[0]), 1e-3);
    if (values.length > 0) {
      for (const layer of spec.layer) if (layer.encoding.y?.field) layer.encoding.y.scale = { domain: [Math.max(0, domain[0] - margin), domain[1] + margin], nice: true, zero: false };
    }
    const over = seeds === 1 ? "n = 1 seed" : `n = ${seeds} seeds`;
    one(".showing", place).textContent = `Shown: ${measure.title}, ${phase.title}${choice.variant ? `, ${choice.variant}` : ""}, ${over}.`
      + (missing.length > 0 ? ` Not measured or diverged: ${missing.join("; ")}.` : "");
    return { ...spec, autosize: { type: "fit", contains: "padding" } };
  }

  const drawn = new Set();

  async function draw(place) {
    drawn.add(place);
    const explorer = place.closest("[data-explorer]");
    const figure = explorer ? null : data.figures[place.dataset.figure];
    const study = explorer ? explorer.dataset.explorer : figure.study;
    const width = place.clientWidth;
    let spec = explorer ? explorerSpec(explorer) : fit(without(clone(figure.spec), hiddenOf(study)), width - 12);
    if (explorer) spec.width = Math.max(220, width - 8);
    place.thinetWidth = width;
    if (isDark()) spec = recolour(spec);
    const turn = (place.thinetTurn = (place.thinetTurn || 0) + 1);
    const frame = make("div");
    try {
      const { view } = await window.vegaEmbed(frame, { ...spec, config: config() }, { mode: "vega-lite", renderer: "svg", actions: false, tooltip: { theme: isDark() ? "dark" : "light" } });
      // A later drawing has overtaken this one.
      if (turn !== place.thinetTurn) { view.finalize(); return; }
      place.thinetView?.finalize();
      place.thinetView = view;
      place.replaceChildren(frame);
      place.dataset.drawn = "";
      if (explorer) view.addEventListener("click", (event, item) => { if (item?.datum?.cell) goToCell(study, item.datum.cell); });
    } catch (error) {
      place.replaceChildren(make("p", { class: "no-vega" }, `This figure cannot be drawn: ${error.message}`));
      console.error(error);
    }
  }

  function redraw(study) {
    if (study === undefined) drawLegends();
    for (const place of drawn) {
      const own = place.closest("[data-explorer]")?.dataset.explorer ?? data.figures[place.dataset.figure].study;
      if (study === undefined || own === study) draw(place);
    }
  }

  const places = all(".plot");
  if (window.vegaEmbed) {
    drawLegends();
    const watch = new IntersectionObserver((entries) => {
      for (const entry of entries) if (entry.isIntersecting && !drawn.has(entry.target)) draw(entry.target);
    }, { rootMargin: "600px" });
    places.forEach((place) => watch.observe(place));
    let pause;
    window.addEventListener("resize", () => {
      clearTimeout(pause);
      pause = setTimeout(() => { for (const place of drawn) if (place.clientWidth !== place.thinetWidth) draw(place); }, 150);
    });
    for (const select of all("[data-choose]")) select.addEventListener("change", () => draw(one(".plot", select.closest("[data-explorer]"))));
  } else {
    // The pictures that `make figures` drew, where they are.
    for (const place of places.filter((place) => place.dataset.picture)) {
      const picture = make("img", { src: place.dataset.picture, alt: place.getAttribute("aria-label"), loading: "lazy" });
      picture.addEventListener("error", () => picture.remove());
      place.append(picture);
    }
    root.dataset.noVega = "";
    all(".controls, .legend, .explorer figcaption").forEach((part) => { part.hidden = true; });
  }

  // Cells.
  const cells = new Map();
  window.thinetCells = (table, payload) => cells.set(table, payload);
  const dialog = document.getElementById("cell");
  const body = document.getElementById("cell-body");
  const title = document.getElementById("cell-title");
  title.tabIndex = -1;
  const cellLink = (table, cell) => `#cell/${encodeURIComponent(table)}/${encodeURIComponent(cell)}`;
  const goToCell = (table, cell) => { location.hash = cellLink(table, cell); };
  const number = (value) => (Number.isInteger(value) ? value.toLocaleString("en") : Number(value.toPrecision(6)).toString());

  function load(table) {
    if (cells.has(table)) return Promise.resolve(cells.get(table));
    if (!Object.hasOwn(data.cells, table)) return Promise.reject(new Error(`There is no study ${table} in this report.`));
    return new Promise((resolve, reject) => {
      const script = make("script", { src: data.cells[table] });
      script.addEventListener("load", () => resolve(cells.get(table)));
      script.addEventListener("error", () => reject(new Error(`${data.cells[table]} is missing beside this page; make report writes it.`)));
      document.head.append(script);
    });
  }

  function around(words, table, entries, current) {
    if (entries.length < 2) return null;
    return make("p", { class: "around" }, `${words}: `, entries.map(([id, text]) =>
      (id === current ? make("b", { "aria-current": "true" }, text) : make("a", { href: cellLink(table, id) }, text))));
  }

  function strip(layer, { width, kept }) {
    const across = Math.min(width, 64);
    const step = 9;
    const chosen = new Set(kept);
    const squares = Array.from({ length: width }, (_, at) => make("rect", {
      x: (at % across) * step, y: Math.floor(at / across) * step, width: 7, height: 7, class: chosen.has(at) ? "kept" : "cut" }));
    const [w, h] = [across * step, Math.ceil(width / across) * step];
    return make("div", { class: "strip" }, make("span", {}, make("b", {}, layer), ` ${kept.length} of ${width}`),
      make("svg", { viewBox: `0 0 ${w} ${h}`, width: w, height: h, role: "img", "aria-label": `${layer} keeps the channels ${kept.join(", ")}` }, squares));
  }

  function curve(points) {
    const [w, h, left, bottom] = [420, 150, 46, 22];
    const [steps, losses] = [points.map((point) => point[0]), points.map((point) => point[1])];
    const [low, high, last] = [Math.min(...losses), Math.max(...losses), Math.max(...steps)];
    const x = (step) => left + (w - left - 8) * step / last;
    const y = (loss) => 8 + (h - bottom - 8) * (high > low ? (high - loss) / (high - low) : 0.5);
    const text = (words, at) => make("text", at, words);
    return make("svg", { class: "curve", viewBox: `0 0 ${w} ${h}`, width: w, height: h, role: "img",
      "aria-label": `Training loss from ${losses[0].toFixed(3)} in the first window to ${losses[losses.length - 1].toFixed(3)} in the last of ${last} steps` },
      make("line", { x1: left, y1: h - bottom, x2: w - 8, y2: h - bottom }),
      make("polyline", { points: points.map(([step, loss]) => `${x(step).toFixed(1)},${y(loss).toFixed(1)}`).join(" ") }),
      text(high.toFixed(3), { x: left - 6, y: 14, "text-anchor": "end" }), text(low.toFixed(3), { x: left - 6, y: h - bottom, "text-anchor": "end" }),
      text(`${last} steps`, { x: w - 8, y: h - 6, "text-anchor": "end" }));
  }

  const values = (entries) => make("dl", { class: "values" }, entries.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));

  function flat(object, prefix = "") {
    return Object.entries(object).filter(([key]) => key !== "checksum").flatMap(([key, value]) =>
      (value !== null && typeof value === "object" ? flat(value, `${prefix}${key}.`) : [[`${prefix}${key}`, String(value)]]));
  }

  function fill(table, id, study) {
    const cell = study.cells[id];
    if (!cell) throw new Error(`${table} has no cell ${id}.`);
    const isDense = cell.method === "dense";
    title.textContent = isDense ? `Dense net, seed ${cell.seed}` : `${cell.method}, keep rate ${cell.rate}, seed ${cell.seed}`;
    const others = Object.entries(study.cells);
    const list = (same, text) => others.filter(([, other]) => same.every((key) => other[key] === cell[key])).map(([key, other]) => [key, text(other), other]);
    const sorted = (entries) => entries.sort((a, b) => collator.compare(a[1], b[1]));
    const layers = cell.layers.length === 0 ? [] : [make("h3", {}, "Pruned layers"),
      make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Pruned layers" }, make("table", {},
        make("thead", {}, make("tr", {}, ["layer", "channels", "kept", "error after the cut", "error after the refit"].map((text, at) => make("th", { scope: "col", class: at > 0 ? "number" : null }, text)))),
        make("tbody", {}, cell.layers.map(([name, ...numbers]) => make("tr", {}, make("th", { scope: "row" }, name),
          numbers.map((value, at) => make("td", { class: "number" }, value === null ? "–" : at < 2 ? String(value) : value.toFixed(4)))))))),
      make("p", { class: "small" }, "Error: ‖y − X·w‖ / ‖y‖ of the next layer’s sampled inputs. From ", make("code", {}, study.layers), ".")];
    const kept = Object.entries(cell.kept || {}).sort((a, b) => collator.compare(a[0], b[0]));
    body.replaceChildren(...[
      make("p", { class: "facts" }, `${study.dataset}, ${study.net}${cell.variant ? `, variant “${cell.variant}”` : ""}. `, make("code", {}, id), `, run `, make("code", {}, study.run), "."),
      cell.status === "done" ? null : make("p", { class: "failed" }, cell.status === "diverged" ? "This cell diverged: values after that moment do not exist." : "This cell was not run."),
      around("Seeds", table, sorted(list(["method", "rate", "variant"], (other) => other.seed)), id),
      isDense ? null : around("Keep rates", table, list(["method", "seed", "variant"], (other) => String(other.rate)).sort((a, b) => b[2].rate - a[2].rate), id),
      isDense ? null : around("Methods", table, sorted(list(["rate", "seed", "variant"], (other) => other.method)), id),
      around("Variants", table, sorted(list(["method", "rate", "seed"], (other) => other.variant || "none")), id),
      values([...cell.values.map(([name, value]) => [name, number(value)]), ...(cell.seconds ? [["computed in", `${cell.seconds[0].toFixed(1)} s on ${cell.seconds[1]}`]] : [])]),
      ...layers,
      ...(kept.length === 0 ? [] : [make("h3", {}, "Kept channels"), make("p", { class: "small" }, "A square a channel, from channel 0; filled: kept."), ...kept.map(([name, set]) => strip(name, set))]),
      ...((cell.losses || []).length < 2 ? [] : [make("h3", {}, "Training loss"), curve(cell.losses),
        make("p", { class: "small" }, `Means of windows of ${isDense ? "its training" : "the tuning after the last cut"}, nats. From `, make("code", {}, study.losses), ".")]),
      make("h3", {}, "Where it comes from"),
      study.environment ? make("details", {}, make("summary", {}, "Environment"), values(flat(study.environment))) : make("p", { class: "small" }, "No environment is stored beside this table."),
      study.spec ? make("details", {}, make("summary", {}, "Spec, with every default filled in"), make("pre", { tabindex: "0" }, study.spec)) : make("p", { class: "small" }, "No spec is stored beside this table."),
      make("p", { class: "small" }, "In a terminal: ", make("code", {}, `thinet show ${id}`), " shows its stages, ", make("code", {}, `thinet verify ${table}`), " computes cells again and compares them."),
      study.runFolder ? make("p", { class: "small" }, "Raw rows, log and training curves: ", make("a", { href: study.runFolder }, study.runFolder), ".")
        : make("p", { class: "small" }, "The folder of this run is not on the machine that wrote this page; training curves and logs lie only there."),
    ].filter(Boolean));
  }

  async function openCell(table, id) {
    if (!dialog.open) dialog.showModal();
    try {
      fill(table, id, await load(table));
    } catch (error) {
      title.textContent = "This cell cannot be shown";
      body.replaceChildren(make("p", { class: "failed" }, error.message));
    }
    dialog.scrollTop = 0;
    title.focus();
  }

  function follow() {
    const [, table, id] = location.hash.match(/^#cell\/([^/]+)\/([^/]+)$/) || [];
    if (table) { openCell(decodeURIComponent(table), decodeURIComponent(id)); return; }
    if (dialog.open) dialog.close();
    const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const closed = target && target.closest("details:not([open])");
    if (closed) { closed.open = true; target.scrollIntoView(); }
  }
  document.getElementById("cell-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog && event.clientX < dialog.getBoundingClientRect().left) dialog.close(); });
  dialog.addEventListener("close", () => {
    // The address without the cell, without moving the page.
    if (location.hash.startsWith("#cell/")) history.pushState(null, "", location.pathname + location.search);
  });
  window.addEventListener("hashchange", follow);
  window.addEventListener("popstate", follow);
  follow();
  root.dataset.ready = "";
})();
