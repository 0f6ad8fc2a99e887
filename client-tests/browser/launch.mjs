// A server with its web page, and a Chromium beside it.

import { spawn } from "node:child_process";
import fs from "node:fs";
import { createRequire } from "node:module";
import os from "node:os";
import path from "node:path";
import { pathToFileURL } from "node:url";

/** Starts a browser out of a folder of modules. */
export async function chromium(modules) {
  const require = createRequire(path.resolve(modules, "index.js"));
  // The package has no entry for require().
  const packaged = path.resolve(modules, "@sparticuz/chromium/build/esm/index.js");
  const binary = (await import(pathToFileURL(packaged))).default;
  const launcher = require("playwright-core").chromium;
  return launcher.launch({ executablePath: await binary.executablePath(), args: binary.args, headless: true });
}

/** Runs `use(browser, address, server)` while a server with a data directory of its own runs a script. */
export async function withPage(program, modules, script, use) {
  const work = fs.mkdtempSync(path.join(os.tmpdir(), "millstream-page-"));
  fs.writeFileSync(path.join(work, "app.sql"), script);
  const server = spawn(program, ["--data", path.join(work, "state"), "server", "--listen", "127.0.0.1:0", "--ui", "127.0.0.1:0",
    path.join(work, "app.sql")], { stdio: ["ignore", "pipe", "pipe"] });
  let log = "";
  for (const stream of [server.stdout, server.stderr]) stream.on("data", (text) => { log += text; });
  const browser = await chromium(modules);
  try {
    while (!/listening on/.test(log)) {
      if (server.exitCode !== null) throw new Error(`the server ended: ${log}`);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    await use(browser, /the web page is at (\S+)/.exec(log)[1], server);
  } finally {
    await browser.close();
    server.kill("SIGKILL");
    fs.rmSync(work, { recursive: true, force: true });
  }
}
