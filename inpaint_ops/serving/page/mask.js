// The mask: one byte for each pixel of the picture, 1 = to be filled, whatever the zoom.
// Undo keeps the runs of pixels that a stroke changed.

export class Mask {
  constructor(width, height) {
    this.width = width;
    this.height = height;
    this.bytes = new Uint8Array(width * height);
    this.count = 0;
    this.done = [];
    this.undone = [];
    this.runs = null;
  }

  // Begin a stroke that paints (value 1) or erases (value 0).
  begin(value) {
    this.value = value;
    this.runs = [];
  }

  // End the stroke; one that changed nothing is forgotten.
  end() {
    if (this.runs !== null && this.runs.length > 0) {
      this.done.push({ value: this.value, runs: Uint32Array.from(this.runs) });
      this.undone = [];
    }
    this.runs = null;
  }

  // Take back the stroke that was begun, as if it had never been.
  abandon() {
    if (this.runs === null) return;
    this.write(this.runs, 1 - this.value);
    this.runs = null;
  }

  // Cover the pixels whose centres lie within size / 2 of the line between two points.
  line(x0, y0, x1, y1, size) {
    if (size <= 1) this.thinLine(x0, y0, x1, y1);
    else this.capsule(x0, y0, x1, y1, size / 2);
  }

  // Cover the pixels that a line passes, one for each step along its longer axis.
  thinLine(x0, y0, x1, y1) {
    const steps = Math.max(1, Math.ceil(Math.max(Math.abs(x1 - x0), Math.abs(y1 - y0))));
    for (let i = 0; i <= steps; i++) {
      const x = Math.floor(x0 + ((x1 - x0) * i) / steps);
      this.span(Math.floor(y0 + ((y1 - y0) * i) / steps), x, x);
    }
  }

  capsule(x0, y0, x1, y1, radius) {
    const length = Math.hypot(x1 - x0, y1 - y0);
    const nx = length > 0 ? (-(y1 - y0) / length) * radius : 0;
    const ny = length > 0 ? ((x1 - x0) / length) * radius : 0;
    // The rectangle between the two discs, as a closed line of corners.
    const corners = [[x0 + nx, y0 + ny], [x1 + nx, y1 + ny], [x1 - nx, y1 - ny], [x0 - nx, y0 - ny]];
    const first = Math.max(0, Math.floor(Math.min(y0, y1) - radius));
    const last = Math.min(this.height - 1, Math.ceil(Math.max(y0, y1) + radius));
    for (let row = first; row <= last; row++) {
      const y = row + 0.5;
      let low = Infinity;
      let high = -Infinity;
      for (const [cx, cy] of [[x0, y0], [x1, y1]]) {
        const rest = radius * radius - (y - cy) * (y - cy);
        if (rest >= 0) {
          low = Math.min(low, cx - Math.sqrt(rest));
          high = Math.max(high, cx + Math.sqrt(rest));
        }
      }
      for (let i = 0; i < 4 && length > 0; i++) {
        const [ax, ay] = corners[i];
        const [bx, by] = corners[(i + 1) % 4];
        if (ay <= y !== by <= y) {
          const x = ax + ((bx - ax) * (y - ay)) / (by - ay);
          low = Math.min(low, x);
          high = Math.max(high, x);
        }
      }
      this.span(row, Math.ceil(low - 0.5), Math.floor(high - 0.5));
    }
  }

  // Cover the pixels of a row from column `first` to `last`, both included.
  span(row, first, last) {
    if (row < 0 || row >= this.height) return;
    const begin = row * this.width + Math.max(0, first);
    const end = row * this.width + Math.min(this.width - 1, last);
    let start = -1;
    for (let i = begin; i <= end; i++) {
      if (this.bytes[i] !== this.value) {
        if (start < 0) start = i;
      } else if (start >= 0) {
        this.change(start, i - start);
        start = -1;
      }
    }
    if (start >= 0) this.change(start, end + 1 - start);
  }

  change(start, length) {
    this.runs.push(start, length);
    this.bytes.fill(this.value, start, start + length);
    this.count += this.value ? length : -length;
  }

  write(runs, value) {
    for (let i = 0; i < runs.length; i += 2) {
      this.bytes.fill(value, runs[i], runs[i] + runs[i + 1]);
      this.count += value ? runs[i + 1] : -runs[i + 1];
    }
  }

  clear() {
    this.begin(0);
    for (let row = 0; row < this.height && this.count > 0; row++) this.span(row, 0, this.width - 1);
    this.end();
  }

  undo() {
    const step = this.done.pop();
    if (step === undefined) return;
    this.write(step.runs, 1 - step.value);
    this.undone.push(step);
  }

  redo() {
    const step = this.undone.pop();
    if (step === undefined) return;
    this.write(step.runs, step.value);
    this.done.push(step);
  }

  // One bit for each pixel, the first in the highest bit of a byte.
  packed() {
    const bits = new Uint8Array(Math.ceil(this.bytes.length / 8));
    for (let i = 0; i < this.bytes.length; i++) {
      if (this.bytes[i]) bits[i >> 3] |= 128 >> (i & 7);
    }
    return bits;
  }
}
