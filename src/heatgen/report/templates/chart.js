"use strict";
const SVG = "http://www.w3.org/2000/svg";

function make(name, attributes = {}, text = "") {
  const drawn = ["svg", "path", "line", "text", "circle", "g"].includes(name);
  const node = drawn ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text) node.textContent = text;
  return node;
}

function words(value) {
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e");
  return String(Number(value.toPrecision(4)));
}

// Round places between two numbers, about five; powers of ten where the axis is one of them.
function ticks(low, high, log) {
  if (log) {
    const found = [];
    for (let power = Math.floor(Math.log10(low)); 10 ** power <= high; power++)
      for (const factor of high / low > 100 ? [1] : [1, 2, 5])
        if (factor * 10 ** power >= low && factor * 10 ** power <= high) found.push(factor * 10 ** power);
    const every = Math.ceil(found.length / 6);
    return found.filter((_, i) => i % every === 0);
  }
  const rough = (high - low) / 4, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find(factor => factor * power >= rough) * power;
  const found = [];
  for (let place = Math.ceil(low / step); place * step <= high * (1 + 1e-9); place++) found.push(place * step);
  return found;
}

// A chart of {title, series: [{label, points: [[x, y], ...], colour}]} in a figure: redrawn for every width, read by pointer and keys.
function chart(figure, spec) {
  const every = spec.series.flatMap(one => one.points);
  const ys = every.map(point => point[1]), xs = every.map(point => point[0]);
  let [left, right, low, high] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const log = low > 0 && high > 10 * low;
  if (left === right) [left, right] = [left - 1, right + 1];
  if (low === high) [low, high] = low === 0 ? [-1, 1] : [low - Math.abs(low) / 2, high + Math.abs(high) / 2];
  if (!log) [low, high] = [low - 0.04 * (high - low), high + 0.04 * (high - low)];
  const place = value => log ? Math.log(value) : value;
  const caption = make("figcaption"), legend = make("span", { class: "legend" });
  caption.append(make("b", {}, spec.title), legend);
  figure.replaceChildren(caption);
  const last = one => words(one.points[one.points.length - 1][1]);
  const said = `${spec.title}: ${spec.series.map(one => `${one.label} ends at ${last(one)}`).join(", ")}`;
  const svg = make("svg", { role: "img", tabindex: "0", "aria-label": said });
  figure.append(svg);
  const entries = spec.series.map((one, i) => {
    const entry = make("span", { class: `c${one.colour ?? i + 1}` });
    entry.append(make("i"), `${one.label} `, make("output", {}, last(one)));
    legend.append(entry);
    return entry.querySelector("output");
  });
  let read = null;

  function draw() {
    const width = Math.max(figure.clientWidth, 200), height = Math.round(Math.min(260, Math.max(170, width * 0.5)));
    const inner = { left: 52, right: width - 10, top: 8, bottom: height - 26 };
    const x = value => inner.left + (value - left) / (right - left) * (inner.right - inner.left);
    const y = value => inner.bottom - (place(value) - place(low)) / (place(high) - place(low)) * (inner.bottom - inner.top);
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.replaceChildren();
    for (const value of ticks(low, high, log)) {
      svg.append(make("line", { class: "rule", x1: inner.left, x2: inner.right, y1: y(value), y2: y(value) }));
      svg.append(make("text", { x: inner.left - 7, y: y(value) + 4, "text-anchor": "end" }, words(value)));
    }
    for (const value of ticks(left, right, false).filter(Number.isInteger))  // steps
      svg.append(make("text", { x: x(value), y: height - 7, "text-anchor": "middle" }, words(value)));
    spec.series.forEach((one, i) => {
      const path = one.points.map((point, j) => `${j ? "L" : "M"}${x(point[0]).toFixed(1)} ${y(point[1]).toFixed(1)}`).join("");
      svg.append(make("path", { class: `curve c${one.colour ?? i + 1}`, d: path }));
      if (one.points.length < 4)
        for (const point of one.points) svg.append(make("circle", { class: `c${one.colour ?? i + 1}`, cx: x(point[0]), cy: y(point[1]), r: 3.5 }));
    });
    const cursor = make("g");
    svg.append(cursor);
    read = at => {
      cursor.replaceChildren(make("line", { class: "cursor", x1: x(at), x2: x(at), y1: inner.top, y2: inner.bottom }));
      spec.series.forEach((one, i) => {
        const near = one.points.reduce((a, b) => Math.abs(b[0] - at) < Math.abs(a[0] - at) ? b : a);
        entries[i].textContent = `${words(near[1])} at ${words(near[0])}`;
        cursor.append(make("circle", { class: `c${one.colour ?? i + 1}`, cx: x(near[0]), cy: y(near[1]), r: 4 }));
      });
    };
    svg.onpointermove = event => {
      const box = svg.getBoundingClientRect(), at = (event.clientX - box.left) / box.width * width;
      read(left + Math.min(1, Math.max(0, (at - inner.left) / (inner.right - inner.left))) * (right - left));
    };
    svg.onpointerleave = svg.onblur = () => {
      cursor.replaceChildren();
      spec.series.forEach((one, i) => { entries[i].textContent = last(one); });
    };
  }
  let at = right;
  svg.onkeydown = event => {
    const step = { ArrowLeft: -0.02, ArrowRight: 0.02 }[event.key];
    if (!step) return;
    event.preventDefault();
    at = Math.min(right, Math.max(left, at + step * (right - left)));
    read(at);
  };
  let drawn = 0;
  new ResizeObserver(() => requestAnimationFrame(() => {
    if (drawn === figure.clientWidth) return;
    drawn = figure.clientWidth;
    draw();
  })).observe(figure);
  draw();
}
