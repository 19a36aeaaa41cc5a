// Requests to the server that this page comes from, and to no other.

async function answer(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer. Is inpaint-ops serve still running?");
  }
  if (response.ok) return response;
  let text = `The server answers ${response.status}.`;
  try {
    text = (await response.json()).error;
  } catch {
    // No JSON: the status must do.
  }
  throw new Error(text);
}

async function post(path, body) {
  const headers = { "Content-Type": "application/octet-stream" };
  // An empty request, such as to cancel, is sent even if the page is closed meanwhile.
  const keepalive = body === undefined;
  return (await answer(path, { method: "POST", headers, body, keepalive })).json();
}

export async function readSetup() {
  return (await answer("/api/setup")).json();
}

export function openPicture(file, name) {
  return post(`/api/pictures?${new URLSearchParams({ name })}`, file);
}

export function startFilling(picture, options, bits) {
  return post(`/api/pictures/${picture}/fill?${new URLSearchParams(options)}`, bits);
}

export async function readJob(job) {
  return (await answer(`/api/jobs/${job}`)).json();
}

export function cancelJob(job) {
  return post(`/api/jobs/${job}/cancel`);
}

export function keepResult(job) {
  return post(`/api/jobs/${job}/keep`);
}

// The picture of an address as an element that is ready to be drawn.
export async function readImage(path) {
  const address = URL.createObjectURL(await (await answer(path)).blob());
  const image = new Image();
  image.src = address;
  try {
    await image.decode();
  } catch {
    throw new Error("The browser cannot show this picture; it may be too large for it.");
  } finally {
    URL.revokeObjectURL(address);
  }
  return image;
}

// Let the browser save a filled picture; returns the name of the file.
export async function saveFile(job, suffix) {
  const response = await answer(`/api/jobs/${job}/file?${new URLSearchParams({ suffix })}`);
  const stated = response.headers.get("Content-Disposition") ?? "";
  const name = decodeURIComponent(stated.split("filename*=UTF-8''")[1] ?? `filled.${suffix}`);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await response.blob());
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  return name;
}
