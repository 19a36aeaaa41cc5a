// Where the picture lies on the stage: one scale and one offset, in CSS pixels.

const MOST = 40;

export class View {
  constructor() {
    this.picture = { width: 1, height: 1 };
    this.stage = { width: 1, height: 1 };
    this.fits = true;
    this.fit();
  }

  setPicture(width, height) {
    this.picture = { width, height };
    this.fit();
  }

  // A picture that fits still does after the window has another size.
  setStage(width, height) {
    this.stage = { width, height };
    if (this.fits) this.fit();
    else this.hold();
  }

  fitScale() {
    const space = 24;
    const across = (this.stage.width - space) / this.picture.width;
    const down = (this.stage.height - space) / this.picture.height;
    return Math.max(1e-3, Math.min(across, down, MOST / 4));
  }

  fit() {
    this.scale = this.fitScale();
    this.x = (this.stage.width - this.picture.width * this.scale) / 2;
    this.y = (this.stage.height - this.picture.height * this.scale) / 2;
    this.fits = true;
  }

  // Zoom so that the point of the picture under (x, y) stays there.
  zoomTo(scale, x = this.stage.width / 2, y = this.stage.height / 2) {
    const least = Math.min(this.fitScale() / 2, 1);
    const next = Math.min(MOST, Math.max(least, scale));
    this.x = x - ((x - this.x) * next) / this.scale;
    this.y = y - ((y - this.y) * next) / this.scale;
    this.scale = next;
    this.fits = false;
    this.hold();
  }

  move(dx, dy) {
    this.x += dx;
    this.y += dy;
    this.fits = false;
    this.hold();
  }

  // Keep some of the picture on the stage.
  hold() {
    const kept = 60;
    const width = this.picture.width * this.scale;
    const height = this.picture.height * this.scale;
    this.x = Math.min(this.stage.width - kept, Math.max(kept - width, this.x));
    this.y = Math.min(this.stage.height - kept, Math.max(kept - height, this.y));
  }

  // The point of the picture under a point of the stage.
  toPicture(x, y) {
    return [(x - this.x) / this.scale, (y - this.y) / this.scale];
  }

  // Columns of the stage that show the picture: [left, right].
  visible() {
    const left = Math.max(0, this.x);
    return [left, Math.max(left, Math.min(this.stage.width, this.x + this.picture.width * this.scale))];
  }
}
