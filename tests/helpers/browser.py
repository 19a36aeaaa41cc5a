"""A headless Chromium, driven by the WebDriver protocol; nothing but the standard library."""

import base64
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-proxy-server",
    "--force-device-scale-factor=1",
)
# The protocol's name of the key under which an element is told.
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
_NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class BrowserError(Exception):
    """The browser refused a command."""


class Browser:
    """A session of WebDriver."""

    def __init__(self, address, folder, size):
        self._session = address
        options = {
            "binary": CHROMIUM,
            "args": [
                *FLAGS,
                f"--user-data-dir={folder / 'profile'}",
                f"--window-size={size[0]},{size[1]}",
            ],
            "prefs": {
                "download.default_directory": str(folder / "downloads"),
                "download.prompt_for_download": False,
            },
        }
        wanted = {
            "alwaysMatch": {
                "goog:chromeOptions": options,
                "goog:loggingPrefs": {"browser": "ALL"},
                "unhandledPromptBehavior": "accept",
            }
        }
        made = self._call("POST", "/session", {"capabilities": wanted})
        self._session = f"{address}/session/{made['sessionId']}"
        self.downloads = folder / "downloads"

    def _call(self, verb, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self._session + path, data, {"Content-Type": "application/json"}, method=verb
        )
        try:
            with _NO_PROXY.open(request, timeout=120) as response:
                return json.load(response)["value"]
        except urllib.error.HTTPError as exc:
            with exc:
                raise BrowserError(json.load(exc)["value"]["message"]) from exc

    def open(self, url):
        self._call("POST", "/url", {"url": url})

    def run(self, script, *arguments):
        """Returns what a script returns; it may await."""
        body = (
            "const done = arguments[arguments.length - 1]; const given = [...arguments];"
            f"(async (...args) => {{ {script} }})(...given.slice(0, -1))"
            ".then((value) => done([true, value]), (error) => done([false, String(error)]));"
        )
        good, value = self._call(
            "POST", "/execute/async", {"script": body, "args": list(arguments)}
        )
        if not good:
            raise BrowserError(value)
        return value

    def find(self, selector):
        found = self._call("POST", "/element", {"using": "css selector", "value": selector})
        return found[_ELEMENT]

    def click(self, selector):
        self._call("POST", f"/element/{self.find(selector)}/click", {})

    def type(self, selector, text):
        self._call("POST", f"/element/{self.find(selector)}/value", {"text": text})

    def text(self, selector):
        return self.run("return document.querySelector(args[0]).textContent", selector)

    def box(self, selector):
        """x, y, width, height of an element in the window."""
        script = (
            "const r = document.querySelector(args[0]).getBoundingClientRect();"
            "return [r.x, r.y, r.width, r.height]"
        )
        return self.run(script, selector)

    def drag(self, points, button=0):
        """Presses at the first point, moves through the others, releases; in the window."""
        moves = [
            {"type": "pointerMove", "duration": 0, "x": round(x), "y": round(y)} for x, y in points
        ]
        down, up = ({"type": f"pointer{what}", "button": button} for what in ("Down", "Up"))
        self._act("pointer", "mouse", [moves[0], down, *moves[1:], up])

    def press(self, keys, held=()):
        """Presses keys one after the other while others are held down."""
        steps = [{"type": "keyDown", "value": key} for key in held]
        for key in keys:
            steps += [{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]
        steps += [{"type": "keyUp", "value": key} for key in held]
        self._act("key", "keyboard", steps)

    def hold(self, key):
        self._act("key", "keyboard", [{"type": "keyDown", "value": key}])

    def release(self, key):
        self._act("key", "keyboard", [{"type": "keyUp", "value": key}])

    def wheel(self, x, y, delta):
        step = {"type": "scroll", "x": round(x), "y": round(y), "deltaX": 0, "deltaY": delta}
        self._act("wheel", "wheel", [{**step, "duration": 0, "origin": "viewport"}])

    def _act(self, kind, name, steps):
        source = {"type": kind, "id": name, "actions": steps}
        self._call("POST", "/actions", {"actions": [source]})

    def wait(self, condition, *arguments, seconds=120):
        """Waits until a script's expression is true."""
        end = time.monotonic() + seconds
        while not (value := self.run(f"return {condition}", *arguments)):
            if time.monotonic() > end:
                raise TimeoutError(condition)
            time.sleep(0.05)
        return value

    def picture(self):
        """A PNG of the window."""
        return base64.b64decode(self._call("GET", "/screenshot"))

    def complaints(self):
        """Lines of the console since the last call: errors of scripts, refused requests."""
        lines = self._call("POST", "/se/log", {"type": "browser"})
        return [line["message"] for line in lines if line["level"] == "SEVERE"]

    def close(self):
        self._call("DELETE", "")


@contextmanager
def browser(folder, size=(1280, 800)):
    """A browser with an empty profile in a folder, ended with the block."""
    with subprocess.Popen(
        [DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            for line in process.stdout:
                if "started successfully on port" in line:
                    port = line.rstrip(" .\n").rpartition(" ")[2]
                    break
            else:
                raise BrowserError("chromedriver did not start")
            one = Browser(f"http://127.0.0.1:{port}", folder, size)
            try:
                yield one
            finally:
                with suppress(BrowserError, OSError):
                    one.close()
        finally:
            process.terminate()
