// The stage: where the picture is shown, painted on, moved and compared. It knows no server.

import { Drawing } from "./drawing.js";
import { Mask } from "./mask.js";
import { View } from "./view.js";

const byId = (id) => document.getElementById(id);

export class Stage {
  // `changed` is called after each stroke and each change of the view.
  constructor(changed) {
    this.element = byId("stage");
    this.changed = changed;
    this.view = new View();
    this.drawing = new Drawing(byId("picture"), byId("overlay"), this.view);
    this.mask = null;
    this.before = null;
    this.after = null;
    this.comparing = false;
    this.locked = false;
    this.split = 0.5;
    this.tool = "brush";
    this.size = 40;
    this.space = false;
    this.drag = null;
    this.last = null;
    this.pointer = null;
    this.waiting = false;
    new ResizeObserver(() => this.resize()).observe(this.element);
    this.resize();
    this.listen();
  }

  // Show another picture, with nothing painted.
  show(before) {
    const { naturalWidth: width, naturalHeight: height } = before.image;
    this.stop();
    this.before = before;
    this.after = null;
    this.comparing = false;
    const same = this.mask !== null && this.mask.width === width && this.mask.height === height;
    this.mask = new Mask(width, height);
    this.last = null;
    // A picture that takes the place of one of its size is seen at the same zoom.
    if (!same) this.view.setPicture(width, height);
    this.redraw();
  }

  compare(after) {
    this.after = after;
    this.setComparing(after !== null);
  }

  setComparing(comparing) {
    this.stop();
    this.comparing = comparing && this.after !== null;
    this.redraw();
  }

  setSplit(fraction) {
    this.split = Math.min(1, Math.max(0, fraction));
    this.redraw();
  }

  resize() {
    const { width, height } = this.element.getBoundingClientRect();
    this.drawing.resize(width, height);
    this.view.setStage(width, height);
    this.redraw();
  }

  // Draw everything with the next frame, once however often it is asked for.
  redraw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.drawNow();
    });
  }

  drawNow() {
    const [left, right] = this.view.visible();
    const split = left + this.split * (right - left);
    this.drawing.drawPicture(this.before, this.comparing ? this.after : null, split);
    if (this.mask !== null && !this.comparing) this.drawing.drawMask(this.mask);
    else this.drawing.clearMask();
    byId("divider").hidden = byId("tags").hidden = !this.comparing;
    byId("divider").style.left = `${split}px`;
    this.showPointer();
    this.changed();
  }

  get panning() {
    return this.space || this.tool === "hand" || this.drag?.kind === "pan";
  }

  showPointer() {
    const { classList } = this.element;
    const open = this.before !== null;
    const painting = open && !this.panning && !this.comparing && !this.locked;
    classList.toggle("painting", painting);
    classList.toggle("panning", open && this.panning);
    classList.toggle("comparing", open && !this.panning && this.comparing);
    const ring = byId("ring");
    ring.hidden = !painting || this.pointer === null;
    if (ring.hidden) return;
    const width = Math.max(3, this.size * this.view.scale);
    ring.style.width = ring.style.height = `${width}px`;
    const [x, y] = this.pointer;
    ring.style.transform = `translate(${x - width / 2}px, ${y - width / 2}px)`;
  }

  at(event) {
    const box = this.element.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  listen() {
    const on = (name, listener, options) => this.element.addEventListener(name, listener, options);
    on("pointerdown", (event) => this.down(event));
    on("pointermove", (event) => this.moved(event));
    on("pointerup", () => this.up());
    on("pointercancel", () => this.stop());
    on("pointerleave", () => {
      if (this.drag === null) this.pointer = null;
      this.showPointer();
    });
    on("wheel", (event) => {
      event.preventDefault();
      if (this.before === null) return;
      // Lines, pages and pixels of a wheel, to about a sixth for a notch.
      const unit = [1, 33, 400][event.deltaMode];
      const step = Math.max(-1, Math.min(1, (event.deltaY * unit) / 500));
      this.view.zoomTo(this.view.scale * Math.exp(-step), ...this.at(event));
      this.redraw();
    }, { passive: false });
    on("contextmenu", (event) => {
      if (this.before !== null) event.preventDefault();
    });
  }

  down(event) {
    const inside = event.target.closest("#welcome, #message, #zoom");
    if (this.before === null || inside !== null || event.button > 1 || this.drag !== null) return;
    event.preventDefault();
    this.element.focus({ preventScroll: true, focusVisible: false });
    this.element.setPointerCapture(event.pointerId);
    this.pointer = this.at(event);
    if (event.button === 1 || this.panning) this.drag = { kind: "pan" };
    else if (this.comparing) {
      this.drag = { kind: "split" };
      this.splitAt(this.pointer[0]);
    } else if (!this.locked) {
      this.drag = { kind: "stroke" };
      this.mask.begin(this.tool === "eraser" ? 0 : 1);
      const here = this.view.toPicture(...this.pointer);
      this.strokeTo(event.shiftKey && this.last !== null ? this.last : here, here);
    }
    this.showPointer();
  }

  moved(event) {
    const from = this.pointer;
    this.pointer = this.at(event);
    if (this.drag?.kind === "pan") {
      this.view.move(this.pointer[0] - from[0], this.pointer[1] - from[1]);
      this.redraw();
    } else if (this.drag?.kind === "split") this.splitAt(this.pointer[0]);
    else if (this.drag?.kind === "stroke") {
      // A fast mouse moves several times between two frames.
      const passed = event.getCoalescedEvents?.() ?? [];
      for (const one of passed.length > 0 ? passed : [event]) {
        this.strokeTo(this.last, this.view.toPicture(...this.at(one)));
      }
    }
    this.showPointer();
  }

  up() {
    if (this.drag?.kind === "stroke") {
      this.mask.end();
      this.changed();
    }
    this.drag = null;
    this.showPointer();
  }

  // End what the pointer does, and take back a stroke that is not finished.
  stop() {
    if (this.drag?.kind === "stroke") {
      this.mask.abandon();
      this.redraw();
    }
    const had = this.drag !== null;
    this.drag = null;
    return had;
  }

  strokeTo(from, to) {
    this.mask.line(...from, ...to, this.size);
    this.last = to;
    const reach = this.size / 2 + 1;
    const [xs, ys] = [[from[0], to[0]], [from[1], to[1]]];
    this.drawing.drawMask(this.mask, [
      Math.min(...xs) - reach, Math.min(...ys) - reach, Math.max(...xs) + reach, Math.max(...ys) + reach,
    ]);
  }

  splitAt(x) {
    const [left, right] = this.view.visible();
    this.setSplit((x - left) / Math.max(1, right - left));
  }
}
