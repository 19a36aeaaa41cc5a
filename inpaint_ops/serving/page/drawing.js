// Drawing on the two canvases of the stage: the picture below, the mask above.
// Both have the size of the stage; neither has that of the picture.

const SMALL_LONGEST = 2048;

function colour(red, green, blue, alpha) {
  return new Uint32Array(Uint8Array.of(red, green, blue, alpha).buffer)[0];
}
const PAINTED = [colour(255, 0, 110, 150), colour(255, 60, 150, 110)];
const EDGE = colour(255, 255, 255, 230);

// A picture to draw: the whole one, and a small copy for small scales, which is drawn faster.
export async function drawable(image) {
  const longest = Math.max(image.naturalWidth, image.naturalHeight);
  if (longest <= SMALL_LONGEST) return { image, small: null, smallScale: 0 };
  const smallScale = SMALL_LONGEST / longest;
  const small = await createImageBitmap(image, {
    resizeWidth: Math.max(1, Math.round(image.naturalWidth * smallScale)),
    resizeHeight: Math.max(1, Math.round(image.naturalHeight * smallScale)),
    resizeQuality: "high",
  });
  return { image, small, smallScale };
}

export class Drawing {
  constructor(pictureCanvas, overlayCanvas, view) {
    this.canvases = [pictureCanvas, overlayCanvas];
    this.picture = pictureCanvas.getContext("2d");
    this.overlay = overlayCanvas.getContext("2d");
    this.view = view;
    this.ratio = 1;
  }

  resize(width, height) {
    this.ratio = window.devicePixelRatio || 1;
    for (const canvas of this.canvases) {
      canvas.width = Math.max(1, Math.ceil(width * this.ratio));
      canvas.height = Math.max(1, Math.ceil(height * this.ratio));
      // One pixel of the canvas for each of the screen, whatever fraction the stage ends with.
      canvas.style.width = `${canvas.width / this.ratio}px`;
      canvas.style.height = `${canvas.height / this.ratio}px`;
    }
  }

  // Draw `before`, and right of `split` (CSS pixels) `after`.
  drawPicture(before, after, split) {
    const context = this.picture;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, context.canvas.width, context.canvas.height);
    if (before === null) return;
    this.drawOne(before);
    if (after === null) return;
    context.save();
    context.beginPath();
    context.rect(split * this.ratio, 0, context.canvas.width, context.canvas.height);
    context.clip();
    this.drawOne(after);
    context.restore();
  }

  drawOne(one) {
    const { view, ratio, picture: context } = this;
    const scale = view.scale * ratio;
    const source = one.small !== null && scale <= one.smallScale ? one.small : one.image;
    // Enlarged pixels have edges, so that one sees what is painted.
    context.imageSmoothingEnabled = scale < 2;
    context.imageSmoothingQuality = "high";
    context.drawImage(
      source,
      view.x * ratio, view.y * ratio, view.picture.width * scale, view.picture.height * scale,
    );
  }

  clearMask() {
    this.overlay.clearRect(0, 0, this.overlay.canvas.width, this.overlay.canvas.height);
  }

  // Draw the mask inside a box of the picture, or all of it that is on the stage.
  drawMask(mask, box = null) {
    const { view, ratio, overlay } = this;
    const scale = view.scale * ratio;
    const originX = view.x * ratio;
    const originY = view.y * ratio;
    let [left, top, right, bottom] = [0, 0, overlay.canvas.width, overlay.canvas.height];
    if (box === null) this.clearMask();
    const [x0, y0, x1, y1] = box ?? [0, 0, mask.width, mask.height];
    left = Math.max(left, Math.floor(originX + x0 * scale) - 2);
    top = Math.max(top, Math.floor(originY + y0 * scale) - 2);
    right = Math.min(right, Math.ceil(originX + x1 * scale) + 2);
    bottom = Math.min(bottom, Math.ceil(originY + y1 * scale) + 2);
    if (right <= left || bottom <= top) return;
    const columns = new Int32Array(right - left + 1);
    for (let i = 0; i < columns.length; i++) columns[i] = Math.floor((left + i - 0.5 - originX) / scale);
    const image = overlay.createImageData(right - left, bottom - top);
    const pixels = new Uint32Array(image.data.buffer);
    const at = (row, column) =>
      row >= 0 && row < mask.height && column >= 0 && column < mask.width
        ? mask.bytes[row * mask.width + column] : 0;
    for (let y = top, i = 0; y < bottom; y++) {
      const row = Math.floor((y + 0.5 - originY) / scale);
      const above = Math.floor((y - 0.5 - originY) / scale);
      let before = at(row, columns[0]);
      for (let x = 0; x < right - left; x++, i++) {
        const column = columns[x + 1];
        const here = at(row, column);
        if (here !== before || here !== at(above, column)) pixels[i] = EDGE;
        else if (here) pixels[i] = PAINTED[((left + x + y) >> 3) & 1];
        before = here;
      }
    }
    overlay.putImageData(image, left, top);
  }
}
