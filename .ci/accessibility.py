"""Check a built site with axe-core in Chromium: python .ci/accessibility.py FOLDER AXE_MIN_JS [CHROMIUM]

Every page is opened 1400 and 390 pixels wide, light and dark. A line is printed for each violation of serious or critical impact,
each page that is wider than the window, and each request for a file that is not in the folder. The browser is driven over
the pipes of its DevTools protocol: https://chromedevtools.github.io/devtools-protocol/.
"""

import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
WIDTHS = (1400, 390)
SCHEMES = ("light", "dark")
SERIOUS = ("serious", "critical")
PATIENCE = 60

# The violations as [rule, impact, help, selectors of the elements], once formulas are complete and a new width has its effects.
RUN_AXE = """
(async () => {
  await window.MathJax?.startup?.promise;
  await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
  const results = await axe.run(document, { resultTypes: ["violations"] });
  return results.violations.map(v => [v.id, v.impact, v.help, v.nodes.map(node => node.target.join(" "))]);
})()
"""
TOO_WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


class Browser:
    """A page of a headless Chromium: `call` sends a command of the DevTools protocol and returns its result."""

    def __init__(self, executable, profile):
        (read, self._send), (self._receive, write) = os.pipe(), os.pipe()

        def pipes():  # the browser reads commands from 3 and writes answers to 4
            a, b = os.dup(read), os.dup(write)
            os.dup2(a, 3)
            os.dup2(b, 4)

        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe"]
        self._process = subprocess.Popen(
            [executable, *options, f"--user-data-dir={profile}"],
            preexec_fn=pipes,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read)
        os.close(write)
        self._buffer, self._number, self._session = b"", 0, None
        self.requests, self._loaded = [], False

    def __enter__(self):
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *error):
        self._process.kill()
        self._process.wait()
        os.close(self._send)
        os.close(self._receive)

    def call(self, method, **parameters):
        self._number += 1
        session = {"sessionId": self._session} if self._session else {}
        command = {"id": self._number, "method": method, "params": parameters, **session}
        os.write(self._send, json.dumps(command).encode() + b"\0")
        while (message := self._message()).get("id") != self._number:
            pass
        if "error" in message:
            raise RuntimeError(f"{method}: {message['error']['message']}")
        return message["result"]

    def _message(self):
        """The next answer or event. Requests and the end of loading are noted."""
        while b"\0" not in self._buffer:
            if not select.select([self._receive], [], [], PATIENCE)[0]:
                raise RuntimeError(f"the browser has not answered for {PATIENCE} seconds")
            part = os.read(self._receive, 1 << 16)
            if not part:
                raise BrokenPipeError("the browser has ended")
            self._buffer += part
        text, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(text)
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(message["params"]["request"]["url"])
        self._loaded |= message.get("method") == "Page.loadEventFired"
        return message

    def open(self, url):
        self.requests, self._loaded = [], False
        self.call("Page.navigate", url=url)
        while not self._loaded:
            self._message()

    def evaluate(self, expression):
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(
                answer["exceptionDetails"].get("exception", {}).get("description", "an error in the page")
            )
        return answer["result"].get("value")


def faults_of_page(browser, axe, file):
    """What is wrong with a page, as text that names the width and the scheme."""
    browser.call("Emulation.setDeviceMetricsOverride", width=WIDTHS[0], height=900, deviceScaleFactor=1, mobile=False)
    browser.open(file.as_uri())
    browser.evaluate(axe)
    for width in WIDTHS:
        browser.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        for scheme in SCHEMES:
            browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
            for rule, impact, help, elements in browser.evaluate(RUN_AXE):
                if impact in SERIOUS:
                    yield f"{width} {scheme}: {rule} ({impact}): {help}: {', '.join(elements[:3])} ({len(elements)})"
        if (excess := browser.evaluate(TOO_WIDE)) > 0:
            yield f"{width}: the page is {excess} pixels wider than the window"
    yield from (f"it fetched {url}" for url in browser.requests if not url.startswith(("file:", "data:", "blob:")))


def main(folder, axe, *names):
    folder, axe = Path(folder).resolve(), Path(axe).read_text(encoding="utf-8")
    pages, count = sorted(folder.rglob("*.html")), 0
    executable = next(filter(None, map(shutil.which, names or BROWSERS)), None)
    if not pages or executable is None:
        print(
            f"no page in {folder}: make docs" if not pages else f"no Chromium: {' '.join(names or BROWSERS)}",
            file=sys.stderr,
        )
        return 2
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile, Browser(executable, profile) as browser:
        for file in pages:
            for fault in faults_of_page(browser, axe, file):
                count += 1
                print(f"{file.relative_to(folder)}: {fault}", flush=True)
    print(f"{len(pages)} pages, {count} faults")
    return int(bool(count))


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except (BrokenPipeError, RuntimeError) as error:
        sys.exit(f"accessibility: {error}")
