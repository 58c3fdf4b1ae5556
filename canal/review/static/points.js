// The points of the map, drawn into the pixels of a canvas.
//
// No WebGL: the page's Content-Security-Policy allows no code made of texts, which regl needs, and where there is no
// graphics card (a remote desktop, a laptop on a projector's driver) WebGL is drawn by the processor, too, and slower
// than this loop, which does nothing but add, multiply and write pixels.

"use strict";

const MARGIN = 16; // pixels around the picture that discs may run into without being checked
const NOBODY = 0xffffffff; // in the picture of who stands where: no cell

// Radius of a cell on the screen, in pixels of a usual screen, by the number of cells.
function radiusOf(cells) {
  if (cells <= 3000) return 4;
  if (cells <= 20000) return 2.5;
  if (cells <= 150000) return 1.5;
  return 1;
}

// A colour "#rrggbb" as the canvas keeps it: bytes red, green, blue, opaque, read as one little-endian number.
function packed(hex) {
  const value = parseInt(hex.slice(1), 16);
  const red = (value >> 16) & 255, green = (value >> 8) & 255, blue = value & 255;
  return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}

// A colour between two, for cells that stand in the background.
function mixed(colour, other, share) {
  let out = 0;
  for (const shift of [0, 8, 16]) {
    const a = (colour >>> shift) & 255, b = (other >>> shift) & 255;
    out |= Math.round(a * (1 - share) + b * share) << shift;
  }
  return (out | (255 << 24)) >>> 0;
}

class PointMap {
  // canvas: of the cells; lasso: a canvas above it for the line that is drawn.
  constructor(canvas, lasso) {
    this.canvas = canvas;
    this.lasso = lasso;
    this.count = 0;
    this.x = new Float32Array(0);
    this.y = new Float32Array(0);
    this.codes = new Uint16Array(0); // colour of each cell, a place in the palette
    this.palette = new Uint32Array([packed("#888888")]);
    this.mask = null; // 1 for each cell that is selected; null where none is
    this.selected = 0;
    this.onselect = () => {};
    this.onpoint = () => {};
    this.onhover = () => {};
    this.background = packed("#ffffff");
    this._size();
    this._listen();
    new ResizeObserver(() => { this._size(); this.fit(); }).observe(canvas);
  }

  // Coordinates of all cells: arrays of the same length.
  setPoints(x, y) {
    this.x = x;
    this.y = y;
    this.count = x.length;
    this.codes = new Uint16Array(this.count);
    this.mask = null;
    let left = Infinity, right = -Infinity, low = Infinity, high = -Infinity;
    for (let i = 0; i < this.count; i++) {
      if (x[i] < left) left = x[i];
      if (x[i] > right) right = x[i];
      if (y[i] < low) low = y[i];
      if (y[i] > high) high = y[i];
    }
    this.bounds = this.count ? [left, right, low, high] : [0, 1, 0, 1];
    this.fit();
  }

  // codes: a place in the palette for each cell; palette: colours "#rrggbb".
  setColours(codes, palette) {
    this.codes = codes;
    this.palette = Uint32Array.from(palette, packed);
    this.draw();
  }

  setBackground(hex) {
    this.background = packed(hex);
    this.draw();
  }

  // cells: rows of the selected cells, or null.
  select(cells) {
    this.mask = null;
    this.selected = 0;
    if (cells && cells.length) {
      this.mask = new Uint8Array(this.count);
      for (const row of cells) this.mask[row] = 1;
      this.selected = cells.length;
    }
    this.draw();
  }

  // Rows of the selected cells, ascending.
  rows() {
    const rows = new Uint32Array(this.selected);
    let n = 0;
    if (this.mask) for (let i = 0; i < this.count; i++) if (this.mask[i]) rows[n++] = i;
    return rows.subarray(0, n);
  }

  // Show all cells.
  fit() {
    if (!this.bounds) return;
    const [left, right, low, high] = this.bounds;
    const room = 0.94; // of the picture; the rest is its edge
    const spread = Math.max((right - left) / this.width, (high - low) / this.height, 1e-12);
    this.scale = room / spread;
    this.dx = this.width / 2 - this.scale * (left + right) / 2;
    this.dy = this.height / 2 + this.scale * (low + high) / 2;
    this.draw();
  }

  // factor above 1: nearer; around a place of the picture, by default its middle.
  zoom(factor, px = this.width / 2, py = this.height / 2) {
    this.dx = px + (this.dx - px) * factor;
    this.dy = py + (this.dy - py) * factor;
    this.scale *= factor;
    this.draw();
  }

  pan(px, py) {
    this.dx += px;
    this.dy += py;
    this.draw();
  }

  // Draw before the next frame, once, however many changes there are.
  draw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => { this.waiting = false; this.drawNow(); });
  }

  drawNow() {
    const stride = this.width + 2 * MARGIN;
    const pixels = this.pixels, owners = this.owners;
    pixels.fill(this.background);
    owners.fill(NOBODY);
    const disc = this._disc(stride);
    if (!this.mask) {
      this._pass(pixels, owners, disc, stride, this.palette, -1);
    } else {
      // What is not selected stands pale behind the selected cells.
      const pale = this.palette.map((colour) => mixed(colour, this.background, 0.82));
      this._pass(pixels, owners, disc, stride, pale, 0);
      this._pass(pixels, owners, disc, stride, this.palette, 1);
    }
    this.canvas.getContext("2d").putImageData(this.image, -MARGIN, -MARGIN);
    this.drawn = performance.now();
  }

  // Draw the cells whose mask is `wanted`; all of them for -1.
  _pass(pixels, owners, disc, stride, palette, wanted) {
    const { x, y, codes, mask, count, scale, dx, dy, width, height } = this;
    const length = disc.length;
    for (let i = 0; i < count; i++) {
      if (wanted >= 0 && mask[i] !== wanted) continue;
      const px = (x[i] * scale + dx) | 0;
      const py = (dy - y[i] * scale) | 0;
      if (px < 0 || py < 0 || px >= width || py >= height) continue;
      const at = (py + MARGIN) * stride + px + MARGIN;
      const colour = palette[codes[i]];
      for (let k = 0; k < length; k++) {
        pixels[at + disc[k]] = colour;
        owners[at + disc[k]] = i;
      }
    }
  }

  // Places of the pixels of a disc, from its middle.
  _disc(stride) {
    const radius = Math.min(radiusOf(this.count) * this.ratio, MARGIN - 1);
    const reach = Math.floor(radius);
    const places = [];
    for (let j = -reach; j <= reach; j++) {
      for (let i = -reach; i <= reach; i++) {
        if (i * i + j * j <= radius * radius) places.push(j * stride + i);
      }
    }
    // The smallest is two by two pixels: one alone cannot be seen on a projector.
    return Int32Array.from(radius < 1.5 ? [0, 1, stride, stride + 1] : places);
  }

  _size() {
    this.ratio = window.devicePixelRatio || 1;
    this.width = Math.max(1, Math.round(this.canvas.clientWidth * this.ratio));
    this.height = Math.max(1, Math.round(this.canvas.clientHeight * this.ratio));
    for (const canvas of [this.canvas, this.lasso]) {
      canvas.width = this.width;
      canvas.height = this.height;
    }
    this.image = new ImageData(this.width + 2 * MARGIN, this.height + 2 * MARGIN);
    this.pixels = new Uint32Array(this.image.data.buffer);
    this.owners = new Uint32Array(this.pixels.length);
    this.line = [];
  }

  // The cell that is seen at a place of the picture, or -1.
  cellAt(px, py) {
    const stride = this.width + 2 * MARGIN;
    const row = this.owners[(Math.round(py) + MARGIN) * stride + Math.round(px) + MARGIN];
    return row === NOBODY || row === undefined ? -1 : row;
  }

  // Select what lies within a line of places [x, y, x, y, ...] of the picture; returns rows.
  within(line) {
    // The area is filled once; then every cell looks its own pixel up.
    const area = new OffscreenCanvas(this.width, this.height).getContext("2d", { willReadFrequently: true });
    area.beginPath();
    for (let k = 0; k < line.length; k += 2) area.lineTo(line[k], line[k + 1]);
    area.closePath();
    area.fill();
    const filled = new Uint32Array(area.getImageData(0, 0, this.width, this.height).data.buffer);
    const rows = new Uint32Array(this.count);
    let n = 0;
    for (let i = 0; i < this.count; i++) {
      const px = (this.x[i] * this.scale + this.dx) | 0;
      const py = (this.dy - this.y[i] * this.scale) | 0;
      if (px < 0 || py < 0 || px >= this.width || py >= this.height) continue;
      if (filled[py * this.width + px] >>> 31) rows[n++] = i;
    }
    return rows.slice(0, n);
  }

  _place(event) {
    const box = this.canvas.getBoundingClientRect();
    return [(event.clientX - box.left) * this.ratio, (event.clientY - box.top) * this.ratio];
  }

  _listen() {
    const canvas = this.canvas;
    let panning = null;
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      const place = this._place(event);
      // Shift or another button moves the map; else a lasso begins.
      if (event.shiftKey || event.button !== 0) panning = place;
      else this.line = [...place];
    });
    canvas.addEventListener("pointermove", (event) => {
      const [px, py] = this._place(event);
      if (panning) {
        this.pan(px - panning[0], py - panning[1]);
        panning = [px, py];
      } else if (this.line.length) {
        this.line.push(px, py);
        this._drawLine();
      } else {
        this.onhover(this.cellAt(px, py));
      }
    });
    canvas.addEventListener("pointerup", (event) => {
      if (panning) { panning = null; return; }
      const line = this.line;
      this.line = [];
      this._drawLine();
      // A short line is a click on a cell.
      if (line.length >= 8) this.onselect(this.within(line));
      else if (line.length) this.onpoint(this.cellAt(line[0], line[1]));
    });
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      const [px, py] = this._place(event);
      this.zoom(event.deltaY < 0 ? 1.25 : 0.8, px, py);
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      const step = 40 * this.ratio;
      const moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
      if (moves[event.key]) this.pan(...moves[event.key]);
      else if (event.key === "+" || event.key === "=") this.zoom(1.25);
      else if (event.key === "-") this.zoom(0.8);
      else if (event.key === "0") this.fit();
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
  }

  _drawLine() {
    const pen = this.lasso.getContext("2d");
    pen.clearRect(0, 0, this.width, this.height);
    if (this.line.length < 4) return;
    pen.beginPath();
    for (let k = 0; k < this.line.length; k += 2) pen.lineTo(this.line[k], this.line[k + 1]);
    pen.closePath();
    pen.lineWidth = 2 * this.ratio;
    pen.strokeStyle = "#d55e00";
    pen.stroke();
  }
}

window.PointMap = PointMap;
