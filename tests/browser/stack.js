// The local stack, run as `cargo run -- --data` runs it, on a small world of our own.

import { spawn } from "node:child_process";
import { mkdir, mkdtemp, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const TARGET = process.env.CARGO_TARGET_DIR ?? join(ROOT, "target");
/** Longest wait for the stack: where its binaries are stale it builds them first. */
const START_PATIENCE = 900_000;
const LOOK_EVERY = 100;

/** Waits until `look` finds something, and returns it. */
export async function until(what, look, patience = 60_000) {
  const deadline = Date.now() + patience;
  for (;;) {
    const found = await look();
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`waited in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY));
  }
}

/** The world of one sync: its audience, and nothing else. */
const ONE_SYNC = {
  library: {
    folders: [{ folderId: 1, parentFolderId: 0, name: "Retail" }],
    segments: [{ sid: 101, folderId: 1, name: "Seen in a browser" }],
  },
  lists: [],
  syncs: [{ audience_id: "aam:101", list: { name: "Seen in a browser" } }],
  delivered: "101",
  at: 1_793_491_200_000,
};

/**
 * Starts the stack; `people` are in its audience, and Marketo knows them by their tokens. `world`: another library, other
 * lists, other syncs, other audiences that are delivered (with a comma between them), and when (ms).
 */
export async function startStack({ org, munchkin, people, world = ONE_SYNC }) {
  const program = join(TARGET, "debug", "local");
  await stat(program).catch(() => {
    throw new Error(`${program} is missing: run cargo build -p local first`);
  });
  const folder = await mkdtemp(join(tmpdir(), "tag-"));
  const put = async (file, content) =>
    writeFile(join(folder, file), typeof content === "string" ? content : JSON.stringify(content));
  await mkdir(join(folder, "incoming"));
  await put("library.json", world.library);
  await put("marketo.json", {
    munchkin_id: munchkin,
    org_id: org,
    leads: people.map(({ lead, email, token }) => ({ id: lead, email, cookies: [token], ecids: [] })),
    lists: world.lists,
  });
  await put("matches.jsonl", "");
  await put("syncs.json", world.syncs);
  await put(`incoming/S3_1234_20914_Browser_full_${world.at ?? ONE_SYNC.at}.sync`, people.map(({ ecid }) => `${ecid}\t${world.delivered}\t\n`).join(""));

  const child = spawn(program, ["--data", folder, "--fresh", "--port", "0"], { cwd: ROOT });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (bytes) => (output += bytes));
  const ended = new Promise((resolve) => child.on("exit", resolve));
  // Whatever becomes of the tests.
  process.on("exit", () => child.kill("SIGKILL"));
  const line = (pattern) =>
    until(
      `${pattern}`,
      () => {
        if (child.exitCode !== null) throw new Error(`the stack ended: ${output}`);
        return pattern.exec(output)?.[1];
      },
      START_PATIENCE,
    );
  let url, marketo;
  try {
    url = await line(/^Open (\S+)\/$/m);
    marketo = await line(/Marketo's world: (\S+)\/_control\//);
  } catch (error) {
    // A child that goes on would keep this process alive.
    child.kill("SIGKILL");
    throw error;
  }

  const call = async (method, path, body) => {
    const answer = await fetch(url + path, {
      method,
      headers: { "content-type": "application/json" },
      body: body && JSON.stringify(body),
    });
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`);
    return answer.json();
  };
  return {
    url,
    call,
    /** Pages of these origins may send beacons. */
    async allow(origins) {
      await call("PUT", "/subscription", { ...(await call("GET", "/subscription")), origins });
    },
    /** The lists as Marketo has them: {id, name, members}. */
    async lists() {
      return (await fetch(`${marketo}/_control/lists`)).json();
    },
    /** Leads in the list that the sync made, as Marketo has them. */
    async members() {
      return (await this.lists()).flatMap((list) => list.members).sort();
    },
    /** Stops it. Where logs are kept, what it printed is kept beside what its functions have logged. */
    async stop() {
      child.kill("SIGINT");
      await ended;
      const kept = process.env.STACK_LOGS_DIR;
      if (kept) {
        await mkdir(kept, { recursive: true });
        await writeFile(join(kept, "browser.log"), output);
      }
      await rm(folder, { recursive: true });
    },
  };
}
