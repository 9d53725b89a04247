// Goes through the plans of the curve: bars, figures and rows follow the slider, a second plan can lie over the first.
(() => {
  "use strict";
  const at = (id) => document.getElementById(id);
  const form = at("explorer");
  if (!form || typeof DecompressionStream === "undefined") return;
  const find = (where, what) => where && where.querySelector(what);

  // Figures as the rest of the page writes them.
  const minus = (text) => text.replace("-", "−");
  const number = (value, digits = 3) => {
    if (value === null || !Number.isFinite(value)) return "–";
    if (value === 0) return "0";
    const size = Math.abs(value);
    if (size >= 1e-3 && size < 1e4) return minus(value.toFixed(Math.max(0, digits - 1 - Math.floor(Math.log10(size)))));
    const [mantissa, exponent] = value.toExponential(digits - 1).split("e");
    return minus(mantissa) + "e" + Number(exponent);
  };
  const plain = (value, digits = 3) => {
    const [mantissa, exponent] = number(value, digits).split("e");
    return (mantissa.includes(".") ? mantissa.replace(/\.?0+$/, "") : mantissa) + (exponent ? "e" + exponent : "");
  };
  const size = (value) => {
    for (const [unit, scale] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]])
      if (Math.abs(value) >= scale * 0.9995) return `${plain(value / scale)} ${unit}`;
    return `${value.toFixed(0)} B`;
  };
  const count = (value) => value.toLocaleString("en-US");
  const percent = (part, whole) => {
    const share = whole ? (100 * part) / whole : 0;
    if (share > 0 && share < 0.1) return "<0.1 %";
    return (share >= 9.95 || share === 0 ? share.toFixed(0) : share.toFixed(1)) + " %";
  };
  const bits = (width) => `${width} ${width === 1 ? "bit" : "bits"}`;
  const layers = (n) => `${count(n)} ${n === 1 ? "layer" : "layers"}`;

  const explore = (data) => {
    const n = data.weights.length;
    const all = data.weights.reduce((sum, weights) => sum + weights, 0);
    const plans = unpack(data.steps, n, data.options.length);
    const width = data.options.map((option) => option[0]);
    const slider = at("slider");
    let held = null;

    const planAt = (index) => ({
      index, options: plans.subarray(index * n, (index + 1) * n), bytes: data.bytes[index], damage: data.damages[index],
    });
    const uniform = (key) => {
      const [option, bytes, damage] = data.uniform[key];
      return { index: -1, options: new Uint8Array(n).fill(option), bytes, damage };
    };
    const bitsOf = (i, option) => data.weights[i] * width[option] + (data.factors ? data.factors[i] * data.options[option][2] : 0);
    const weightedBits = (plan) => data.weights.reduce((sum, _, i) => sum + bitsOf(i, plan.options[i]), 0);

    const strips = [...document.querySelectorAll(".strip")].map((strip, kind) => {
      const svg = find(strip, "svg");
      const members = data.kinds.flatMap((of, i) => (of === kind ? [i] : []));
      return {
        svg, members, kind,
        name: find(strip, "b").textContent,
        title: svg.firstChild,
        bar: Number(find(strip, ".bars").dataset.bar),
        top: Number(svg.getAttribute("viewBox").split(" ")[3]),
        mean: find(strip, ".strip-name span"),
        rects: [...svg.querySelectorAll("rect")].map((rect) => ({ rect, title: rect.firstChild, name: rect.textContent.replace(/: \d+ bits?$/, "") })),
        words: [...strip.querySelectorAll(".bars div span")],
        weights: members.reduce((sum, i) => sum + data.weights[i], 0),
        inputs: find(svg, ".inputs"),
        other: svg.appendChild(document.createElementNS(svg.namespaceURI, "path")),
      };
    });

    const drawStrip = (strip, plan, other) => {
      const { svg, members, top, bar } = strip;
      const mean = members.reduce((sum, i) => sum + data.weights[i] * width[plan.options[i]], 0) / strip.weights;
      strip.average = mean;
      strip.mean.textContent = `${plain(mean)} bits`;
      strip.title.textContent = `${strip.name}: ${layers(members.length)}, ${plain(mean)} bits on average`;
      if (strip.rects.length)
        members.forEach((layer, place) => {
          const wide = width[plan.options[layer]], { rect, title, name } = strip.rects[place], word = strip.words[place];
          if (rect.getAttribute("height") === String(wide)) return;
          rect.setAttribute("class", "b" + wide);
          rect.setAttribute("y", top - wide);
          rect.setAttribute("height", wide);
          title.textContent = `${name}: ${bits(wide)}`;
          word.textContent = wide;
          word.style.bottom = (100 * wide) / top + "%";
        });
      else {
        const paths = new Map();
        for (const i of members) {
          const wide = width[plan.options[i]];
          paths.set(wide, (paths.get(wide) || "") + `M${i} ${top}v-${wide}h${bar}v${wide}z`);
        }
        for (const path of svg.querySelectorAll("path[class^=b]")) path.remove();
        for (const [wide, d] of [...paths].sort((a, b) => a[0] - b[0])) {
          const path = document.createElementNS(svg.namespaceURI, "path");
          path.setAttribute("class", "b" + wide);
          path.setAttribute("d", d);
          svg.insertBefore(path, find(svg, ".inputs, .axis"));
        }
      }
      const line = (i, wide) => (wide === null ? "" : `M${i} ${top - wide}h${bar}`);
      if (strip.inputs) strip.inputs.setAttribute("d", members.map((i) => line(i, data.options[plan.options[i]][1])).join(""));
      strip.other.setAttribute("class", "other");
      strip.other.setAttribute("d", other ? members.map((i) => line(i, width[other.options[i]])).join("") : "");
    };

    const tiles = Object.fromEntries(
      ["bits", "size", "predicted", "measured"].map((name) => [name, at(name + "-tile")]).filter((pair) => pair[1])
        .map(([name, tile]) => [name, { value: find(tile, "b"), note: find(tile, "span"), own: [find(tile, "b").innerHTML, find(tile, "span").innerHTML] }]),
    );
    const tell = (name, value, unit, note) => {
      const tile = tiles[name];
      if (!tile) return;
      tile.value.textContent = value;
      if (unit) tile.value.append(" ", Object.assign(document.createElement("small"), { textContent: unit }));
      tile.note.textContent = note;
    };
    const own = (plan) => plan.index === data.start;

    const drawTiles = (plan, sum) => {
      if (own(plan))
        for (const tile of Object.values(tiles)) [tile.value.innerHTML, tile.note.innerHTML] = tile.own;
      else {
        const others = data.bytes[data.start];
        const change = plan.bytes - others;
        tell("bits", number(sum / all), "", "a plan of the curve");
        tell("size", size(plan.bytes), "", change ? `${size(Math.abs(change))} ${change > 0 ? "more" : "less"} than the plan of this report` : "as large as the plan of this report");
        tell("predicted", number(plan.damage), data.unit === "nats" ? "nats" : "", "KL to the float model");
        tell("measured", "–", "", "known of the plan of this report alone");
      }
    };

    const legend = find(at("bits"), ".legend");
    const drawLegend = (plan) => {
      const weights = new Map(), layersOf = new Map();
      plan.options.forEach((option, i) => {
        const wide = width[option];
        weights.set(wide, (weights.get(wide) || 0) + data.weights[i]);
        layersOf.set(wide, (layersOf.get(wide) || 0) + 1);
      });
      legend.replaceChildren(...[...weights].sort((a, b) => a[0] - b[0]).map(([wide, sum]) => {
        const item = document.createElement("li");
        const chip = Object.assign(document.createElement("i"), { className: "b" + wide });
        const words = Object.assign(document.createElement("b"), { textContent: bits(wide) });
        const rest = Object.assign(document.createElement("span"), { textContent: `${layers(layersOf.get(wide))}, ${percent(sum, all)} of weights` });
        item.append(chip, words, " ", rest);
        return item;
      }));
    };

    const area = find(at("tradeoff"), ".area");
    const [x, y] = ["x", "y"].map((axis) => area.dataset[axis].split(" ").map(Number));
    const spot = (style) => {
      const group = document.createElementNS("http://www.w3.org/2000/svg", "g");
      group.setAttribute("class", "dot " + style);
      for (const part of ["rim", "core"]) {
        const path = document.createElementNS(group.namespaceURI, "path");
        path.setAttribute("class", part);
        group.append(path);
      }
      find(area, "svg").append(group);
      return group;
    };
    const [otherSpot, shownSpot] = [spot("over"), spot("now")];
    const place = (group, plan) => {
      group.style.display = plan ? "" : "none";
      if (!plan) return;
      const within = (value) => Math.min(1, Math.max(0, value));
      const across = 1000 * within((plan.bytes - x[0]) / (x[1] - x[0]));
      const log = Math.log(Math.max(1e-9, plan.damage) / y[0]) / Math.log(y[1] / y[0]);
      for (const path of group.children) path.setAttribute("d", `M${across.toFixed(1)} ${(1000 * (1 - within(log))).toFixed(1)}h0`);
    };
    const nearest = (event) => {
      const box = area.getBoundingClientRect();
      const wanted = x[0] + ((event.clientX - box.left) / box.width) * (x[1] - x[0]);
      let best = 0;
      data.bytes.forEach((bytes, i) => { if (Math.abs(bytes - wanted) < Math.abs(data.bytes[best] - wanted)) best = i; });
      go(best);
    };
    area.addEventListener("pointerdown", (event) => { area.setPointerCapture(event.pointerId); nearest(event); });
    area.addEventListener("pointermove", (event) => { if (event.buttons) nearest(event); });

    const kinds = [...document.querySelectorAll(".kinds tr[data-kind]")];
    const segments = [...document.querySelectorAll(".whole [data-kind]")];
    const share = (cell, part, whole) => {
      find(cell, "i").style.width = (whole ? (100 * part) / whole : 0).toFixed(1) + "%";
      find(cell, ".part").textContent = percent(part, whole);
    };
    const drawBytes = (plan) => {
      const stored = strips.map(() => 0), lost = strips.map(() => 0);
      plan.options.forEach((option, i) => {
        stored[data.kinds[i]] += data.payload[i][option];
        lost[data.kinds[i]] += data.alone ? data.alone[i][option] : 0;
      });
      const damage = lost.reduce((a, b) => a + b, 0);
      for (const row of kinds) {
        const kind = row.dataset.kind, cells = row.cells;
        if (kind === "rest") {
          const rest = plan.bytes - stored.reduce((a, b) => a + b, 0);
          cells[4].textContent = count(rest);
          share(cells[5], rest, plan.bytes);
          continue;
        }
        cells[3].textContent = number(strips[kind].average);
        cells[4].textContent = count(stored[kind]);
        share(cells[5], stored[kind], plan.bytes);
        if (data.alone && find(cells[6], ".part")) share(cells[6], lost[kind], damage);
      }
      for (const segment of segments) {
        const kind = segment.dataset.kind;
        if (kind === "rest") continue;
        segment.style.flexGrow = stored[kind];
        segment.className = "b" + Math.round(strips[kind].average);
        segment.title = `${strips[kind].name}: ${count(stored[kind])} bytes`;
      }
    };

    const heads = [...at("layers-table").tHead.rows[0].cells].map((head) => head.textContent.trim());
    const column = Object.fromEntries(["bits", "input", "rank", "bytes", "damage"].map((title) => [title, heads.indexOf(title)]));
    const rows = [...at("layers-table").tBodies[0].rows].map((row) => ({ row, layer: Number(row.id.slice(1)) - 1, option: -1 }));
    const drawRows = (plan) => {
      for (const entry of rows) {
        const option = plan.options[entry.layer];
        if (option === entry.option) continue;
        entry.option = option;
        const cells = entry.row.cells, [wide, input, rank] = data.options[option];
        const chip = cells[column.bits].firstChild;
        chip.className = "b" + wide;
        chip.textContent = wide;
        if (column.input >= 0) cells[column.input].textContent = input === null ? "–" : input;
        if (column.rank >= 0) cells[column.rank].textContent = rank;
        cells[column.bytes].textContent = count(data.payload[entry.layer][option]);
        if (data.alone) cells[column.damage].textContent = number(data.alone[entry.layer][option]);
      }
    };

    // The shortest decimal that still means this plan's average, or its bit operations.
    const budget = (plan, sum) => {
      if (data.operations) return ["--max-bops", String(data.operations[plan.index])];
      const total = BigInt(all), exact = BigInt(sum);
      for (let digits = 0; ; digits++) {
        const scale = 10n ** BigInt(digits), up = (exact * scale + total - 1n) / total;
        if ((up * total) / scale !== exact) continue;
        const text = up.toString().padStart(digits + 1, "0");
        return ["--avg-bits", digits ? `${text.slice(0, -digits)}.${text.slice(-digits)}` : text];
      }
    };
    const commandOf = (plan, sum) => {
      if (own(plan)) return data.apply;
      const [flag, value] = budget(plan, sum);
      return `${data.command} ${flag} ${value} -o plan-${value}.json`;
    };

    const compare = (plan, other, sum) => {
      if (!other) return "";
      const wider = plan.options.filter((option, i) => width[option] > width[other.options[i]]).length;
      const narrower = plan.options.filter((option, i) => width[option] < width[other.options[i]]).length;
      const change = (value, less, more, text) => (value ? `${text(Math.abs(value))} ${value < 0 ? less : more}` : "");
      const parts = [
        wider || narrower ? `${layers(wider)} wider, ${count(narrower)} narrower` : "the same weights’ widths",
        change(plan.bytes - other.bytes, "less", "more", size) || "the same size",
        change(plan.damage - other.damage, "less", "more", (value) => `${number(value)} ${data.unit}`) || "the same damage",
        change(sum - weightedBits(other), "fewer", "more", (value) => `${plain(value / all)} bits a weight`),
      ];
      return `Against the other plan, marked by lines: ${parts.filter(Boolean).join("; ")}.`;
    };
    const against = () => {
      const value = at("against").value;
      if (!value) return null;
      return value === "own" ? planAt(data.start) : value === "hold" ? held : uniform(value);
    };

    let rest = 0;
    const show = () => {
      const plan = planAt(slider.valueAsNumber), other = against(), sum = weightedBits(plan);
      document.body.classList.toggle("elsewhere", !own(plan));
      for (const strip of strips) drawStrip(strip, plan, other);
      drawTiles(plan, sum);
      drawLegend(plan);
      drawBytes(plan);
      place(shownSpot, own(plan) ? null : plan);
      place(otherSpot, other);
      const words = `${number(sum / all)} bits, ${size(plan.bytes)}, ${number(plan.damage)} ${data.unit} predicted`;
      slider.setAttribute("aria-valuetext", (own(plan) ? "the plan of this report: " : "") + words);
      at("reading").textContent = `${own(plan) ? "The plan of this report" : `Plan ${count(plan.index + 1)} of ${count(data.bytes.length)}`}: ${words}`;
      at("command").textContent = commandOf(plan, sum);
      at("difference").textContent = compare(plan, other, sum);
      at("copied").textContent = "";
      at("own").disabled = own(plan);
      // Thousands of cells wait until the slider rests.
      clearTimeout(rest);
      rest = setTimeout(() => drawRows(plan), 120);
    };
    const go = (index) => {
      slider.value = index;
      show();
    };

    slider.addEventListener("input", show);
    at("smaller").addEventListener("click", () => go(slider.valueAsNumber - 1));
    at("larger").addEventListener("click", () => go(slider.valueAsNumber + 1));
    at("own").addEventListener("click", () => go(data.start));
    at("against").addEventListener("change", (event) => {
      if (event.target.value === "hold") held = planAt(slider.valueAsNumber);
      show();
    });
    form.addEventListener("submit", (event) => event.preventDefault());
    at("copy").addEventListener("click", async () => {
      const code = at("command");
      let copied = true;
      try {
        await navigator.clipboard.writeText(code.textContent);
      } catch {
        getSelection().selectAllChildren(code);
        copied = document.execCommand("copy");
      }
      at("copied").textContent = copied ? "copied" : "press Ctrl+C";
    });
    for (const item of document.querySelectorAll(".exploring")) item.hidden = false;
    form.hidden = false;
    show();
  };

  const unpack = (steps, n, options) => {
    const plans = new Uint8Array(steps.length);
    for (let i = 0; i < steps.length; i++)
      plans[i] = ((i < n ? 0 : plans[i - n]) + steps.charCodeAt(i) - 48) % options;
    return plans;
  };

  const packed = Uint8Array.from(atob(at("plans").textContent), (character) => character.charCodeAt(0));
  new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"))).json().then(explore);
})();
