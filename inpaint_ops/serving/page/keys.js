// Keys. A control that has the focus keeps those that it uses itself.

const TYPING = "input[type=number], select, textarea";
const STEP = 80;

const PLAIN = {
  b: ["tool", "brush"],
  e: ["tool", "eraser"],
  h: ["tool", "hand"],
  "[": ["stepSize", -1],
  "]": ["stepSize", 1],
  "+": ["zoomIn"],
  "=": ["zoomIn"],
  "-": ["zoomOut"],
  0: ["fit"],
  1: ["actual"],
  c: ["switchView"],
  k: ["keep"],
  enter: ["fill"],
  escape: ["cancel"],
  delete: ["clear"],
  backspace: ["clear"],
  arrowleft: ["move", STEP, 0],
  arrowright: ["move", -STEP, 0],
  arrowup: ["move", 0, STEP],
  arrowdown: ["move", 0, -STEP],
};
const WITH_CONTROL = { z: ["undo"], y: ["redo"], o: ["open"], s: ["save"] };

function found(event) {
  const key = event.key.toLowerCase();
  if (event.altKey) return undefined;
  if (event.ctrlKey || event.metaKey) {
    return key === "z" && event.shiftKey ? ["redo"] : WITH_CONTROL[key];
  }
  return PLAIN[key];
}

// Whether a key means something to the control that has the focus.
function isTaken(event) {
  const { target, key } = event;
  if (event.ctrlKey || event.metaKey || key === "Escape") return false;
  if (target.closest(TYPING)) return true;
  if (key.startsWith("Arrow")) return target.closest("input") !== null;
  if (key === "Enter" || key === " ") return target.closest("button, input, summary, a") !== null;
  return false;
}

export function listenForKeys(actions) {
  document.addEventListener("keydown", (event) => {
    if (isTaken(event)) return;
    if (event.key === " ") {
      event.preventDefault();
      actions.hold(true);
      return;
    }
    const action = found(event);
    if (action === undefined) return;
    event.preventDefault();
    const [name, ...values] = action;
    actions[name](...values);
  });
  document.addEventListener("keyup", (event) => {
    if (event.key === " ") actions.hold(false);
  });
  window.addEventListener("blur", () => actions.hold(false));
  // A control that was clicked gives the keys back to the picture; one that was reached by keys
  // keeps them.
  document.addEventListener("click", (event) => {
    const control = event.target.closest("button, input[type=radio], input[type=range]");
    if (event.detail > 0 && control !== null) {
      document.getElementById("stage").focus({ focusVisible: false });
    }
  });
}
