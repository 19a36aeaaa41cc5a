// The page: what its controls do, and the state between opening and saving.

import { drawable } from "./drawing.js";
import { listenForKeys } from "./keys.js";
import * as server from "./server.js";
import { Stage } from "./stage.js";

const byId = (id) => document.getElementById(id);
const SIZES = [1, 800];
const POLL = 200;

let setup = { methods: [], max_bytes: Infinity, max_pixels: Infinity };
let picture = null;
let job = null;
let filling = false;
let opening = false;
let saving = false;
// The filling under way, by its name at the server.
let running = null;
let saved = true;
const stage = new Stage(update);

function say(text) {
  byId("status").textContent = text;
}

function fail(error) {
  byId("message-text").textContent = error.message;
  byId("message").hidden = false;
  say("");
}

// Run something that may fail; its error is shown.
async function attempt(action) {
  byId("message").hidden = true;
  try {
    await action();
  } catch (error) {
    fail(error);
  }
  update();
}

// Make every control say what can be done now.
function update() {
  const { mask, comparing } = stage;
  const open = picture !== null && !opening;
  byId("paint-tools").disabled = !open;
  byId("fill-tools").disabled = !open || filling;
  byId("result-tools").disabled = !open || job === null || filling;
  byId("progress-area").hidden = !filling;
  stage.locked = filling || opening;
  const paintable = open && !filling && !comparing;
  byId("undo").disabled = !paintable || mask.done.length === 0;
  byId("redo").disabled = !paintable || mask.undone.length === 0;
  byId("clear").disabled = !paintable || mask.count === 0;
  byId("fill").disabled = !open || mask.count === 0 || chosen() === undefined;
  byId("compare").disabled = !comparing;
  byId("save").disabled = saving;
  byId("compare").value = Math.round(stage.split * 100);
  byId("switch").textContent = comparing || job === null ? "Paint more" : "Compare";
  byId("zoom").hidden = picture === null;
  byId("zoom-text").textContent = picture === null ? "" : `${percent(stage.view.scale)} %`;
  byId("size-text").textContent = `${stage.size} px`;
}

function percent(scale) {
  const value = scale * 100;
  return value < 10 ? value.toFixed(1) : Math.round(value);
}

// Methods and weights.

function chosen() {
  const name = byId("method").value;
  const sets = setup.methods.filter((one) => one.name === name && one.ready);
  return sets.find((one) => one.key === byId("weights").value) ?? sets[0];
}

function listMethods() {
  const names = new Set();
  for (const one of setup.methods) {
    if (names.has(one.name)) continue;
    names.add(one.name);
    const option = new Option(one.ready ? one.name : `${one.name} (needs weights)`, one.name);
    option.disabled = !one.ready;
    byId("method").add(option);
  }
  listWeights();
}

function listWeights() {
  const select = byId("weights");
  select.replaceChildren();
  for (const one of setup.methods) {
    if (one.name !== byId("method").value || one.files.length === 0) continue;
    const files = one.files.join(", ");
    select.add(new Option(one.label ? `${one.label}: ${files}` : files, one.key));
  }
  byId("weights-field").hidden = select.options.length === 0;
  byId("summary").textContent = chosen()?.summary ?? "";
  update();
}

// Opening.

function open(file) {
  if (filling || opening) return;
  const lost = !saved && picture !== null;
  if (lost && !window.confirm("Open another picture? What was painted and filled is not saved.")) return;
  attempt(async () => {
    if (file.size > setup.max_bytes) {
      throw new Error(`The file is too large, at most ${setup.max_bytes_text} are accepted.`);
    }
    opening = true;
    say(`Opening ${file.name}…`);
    update();
    try {
      const opened = await server.openPicture(file, file.name || "pasted.png");
      await show(opened, `/api/pictures/${opened.id}/shown.png`);
      say("Paint over what is to be filled.");
    } finally {
      opening = false;
    }
  });
}

async function show(opened, path) {
  const before = await drawable(await server.readImage(path));
  const isNew = picture?.width !== opened.width || picture?.height !== opened.height;
  stage.show(before);
  picture = opened;
  if (isNew) setSize(Math.max(opened.width, opened.height) / 20);
  job = null;
  saved = true;
  byId("welcome").hidden = true;
  byId("file-name").textContent = `${opened.name}, ${opened.width} × ${opened.height} pixels`;
  const format = byId("format").value;
  byId("format").replaceChildren(...opened.formats.map((one) => new Option(one.name, one.suffix)));
  if (opened.formats.some((one) => one.suffix === format)) byId("format").value = format;
  tellFormat();
}

function tellFormat() {
  const format = picture.formats.find((one) => one.suffix === byId("format").value);
  byId("format-note").textContent = format?.exact
    ? "Pixels that were not painted keep their exact values."
    : "Smaller; every pixel is stored anew, with small changes.";
}

// Filling.

const pause = (time) => new Promise((resolve) => setTimeout(resolve, time));

function fill() {
  if (byId("fill").disabled || byId("fill-tools").disabled || stage.drag !== null) return;
  attempt(async () => {
    filling = true;
    showProgress({ state: "starting", fraction: 0, seconds: 0 });
    update();
    try {
      const options = {
        width: picture.width,
        height: picture.height,
        method: chosen().key,
        seed: Math.max(0, Math.round(byId("seed").valueAsNumber || 0)),
      };
      const { id } = await server.startFilling(picture.id, options, stage.mask.packed());
      await finish(id);
    } finally {
      filling = false;
      running = null;
    }
  });
}

async function finish(id) {
  running = id;
  byId("cancel").onclick = () => attempt(async () => showProgress(await server.cancelJob(id)));
  byId("cancel").disabled = false;
  let facts = await server.readJob(id);
  while (facts.state === "reading" || facts.state === "filling") {
    showProgress(facts);
    await pause(POLL);
    facts = await server.readJob(id);
  }
  const seconds = facts.seconds.toFixed(1);
  if (facts.state === "failed") throw new Error(`It could not be filled: ${facts.error}`);
  if (facts.state === "cancelled") {
    say(`Cancelled after ${seconds} s.`);
    return;
  }
  stage.compare(await drawable(await server.readImage(`/api/jobs/${id}/shown.png`)));
  job = id;
  saved = false;
  say(`Filled in ${seconds} s. Compare, then save, or paint more.`);
}

function showProgress(facts) {
  const bar = byId("progress");
  const doing = { starting: "Sending the mask", reading: "Reading the weights", filling: "Filling" };
  let text = facts.cancelling ? "Cancelling" : doing[facts.state] ?? "Filling";
  // A network tells nothing until it is done.
  if (facts.state === "filling" && facts.fraction > 0) {
    bar.value = facts.fraction;
    text += `, ${Math.round(100 * facts.fraction)} %`;
  } else bar.removeAttribute("value");
  byId("progress-text").textContent = `${text}, ${facts.seconds.toFixed(1)} s`;
  const told = `${facts.cancelling ? "Cancelling" : doing[facts.state] ?? "Filling"}…`;
  if (byId("status").textContent !== told) say(told);
  byId("cancel").disabled = facts.cancelling === true;
}

// The result.

function switchView() {
  if (job === null || filling) return;
  stage.setComparing(!stage.comparing);
  say(stage.comparing ? "Compare." : "Paint more, then fill again from the picture as it was.");
}

function keep() {
  if (job === null || filling) return;
  attempt(async () => {
    const opened = await server.keepResult(job);
    await show(opened, `/api/pictures/${opened.id}/shown.png`);
    say("The filled picture is the one to paint on now.");
    saved = false;
  });
}

function save() {
  if (job === null || filling || saving) return;
  attempt(async () => {
    saving = true;
    say("Saving…");
    update();
    try {
      const name = await server.saveFile(job, byId("format").value);
      saved = true;
      say(`Saved as ${name} where the browser keeps its downloads.`);
    } finally {
      saving = false;
    }
  });
}

// Tools.

function setTool(tool) {
  if (tool !== "hand" && stage.comparing) switchView();
  document.querySelector(`input[name=tool][value=${tool}]`).checked = true;
  stage.tool = tool;
  stage.showPointer();
}

// The slider is logarithmic: a step is a share of the size.
function setSize(size) {
  stage.size = Math.round(Math.min(SIZES[1], Math.max(SIZES[0], size)));
  byId("size").value = (100 * Math.log(stage.size / SIZES[0])) / Math.log(SIZES[1] / SIZES[0]);
  byId("size").setAttribute("aria-valuetext", `${stage.size} pixels`);
  stage.showPointer();
  update();
}

function stepSize(direction) {
  const next = stage.size * 1.2 ** direction;
  setSize(direction > 0 ? Math.max(stage.size + 1, next) : Math.min(stage.size - 1, next));
}

function history(action) {
  if (stage.mask === null || filling || stage.comparing || stage.drag !== null) return;
  stage.mask[action]();
  stage.redraw();
  // The next key may come before the next frame.
  update();
}

function zoom(change) {
  if (picture === null) return;
  change(stage.view);
  stage.redraw();
}

const actions = {
  tool: setTool,
  stepSize,
  undo: () => history("undo"),
  redo: () => history("redo"),
  clear: () => history("clear"),
  zoomIn: () => zoom((view) => view.zoomTo(view.scale * 1.4)),
  zoomOut: () => zoom((view) => view.zoomTo(view.scale / 1.4)),
  fit: () => zoom((view) => view.fit()),
  actual: () => zoom((view) => view.zoomTo(1)),
  move: (dx, dy) => zoom((view) => view.move(dx, dy)),
  hold: (held) => {
    stage.space = held;
    stage.showPointer();
  },
  fill,
  cancel: () => {
    if (stage.stop()) return;
    if (filling) byId("cancel").click();
    else byId("message").hidden = true;
  },
  switchView,
  keep,
  save,
  open: () => byId("file").click(),
};

function listen() {
  const buttons = {
    undo: "undo", redo: "redo", clear: "clear", "zoom-in": "zoomIn", "zoom-out": "zoomOut",
    fit: "fit", actual: "actual", fill: "fill", switch: "switchView", keep: "keep", save: "save",
  };
  for (const [id, name] of Object.entries(buttons)) {
    byId(id).addEventListener("click", () => actions[name]());
  }
  for (const radio of document.querySelectorAll("input[name=tool]")) {
    radio.addEventListener("change", () => setTool(radio.value));
  }
  byId("size").addEventListener("input", (event) => {
    setSize(SIZES[0] * (SIZES[1] / SIZES[0]) ** (event.target.value / 100));
  });
  byId("compare").addEventListener("input", (event) => stage.setSplit(event.target.value / 100));
  byId("format").addEventListener("change", tellFormat);
  byId("method").addEventListener("change", listWeights);
  byId("message-close").addEventListener("click", () => (byId("message").hidden = true));
  byId("file").addEventListener("change", (event) => {
    const [file] = event.target.files;
    if (file !== undefined) open(file);
    // The same file can be chosen again.
    event.target.value = "";
  });
  listenForFiles();
  window.addEventListener("beforeunload", (event) => {
    if (!saved || (stage.mask?.count ?? 0) > 0) event.preventDefault();
  });
  // Nobody else can cancel it, and no other begins before it ends.
  window.addEventListener("pagehide", () => {
    if (running !== null) server.cancelJob(running).catch(() => {});
  });
  listenForKeys(actions);
}

function listenForFiles() {
  const { classList } = stage.element;
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    classList.add("dropping");
  });
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) classList.remove("dropping");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    classList.remove("dropping");
    const [file] = event.dataTransfer.files;
    if (file !== undefined) open(file);
    else fail(new Error("No file was dropped; drop a picture from a folder of this machine."));
  });
  document.addEventListener("paste", (event) => {
    const [file] = event.clipboardData.files;
    if (file !== undefined) open(file);
    else fail(new Error("There is no picture to paste."));
  });
}

listen();
setSize(stage.size);
attempt(async () => {
  setup = await server.readSetup();
  listMethods();
});
