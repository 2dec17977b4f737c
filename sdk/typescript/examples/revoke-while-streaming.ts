/**
 * What a program sees whose key is revoked while it follows an execution.
 *
 * AEGIS_API_KEY=… AEGIS_BASE_URL=… node revoke-while-streaming.ts     (a key that may make and revoke keys)
 */
import { AegisClient, KeyRevokedError } from "@aegis/sdk";

const owner = new AegisClient();
const minted = await owner.keys.mint("watcher", { preset: "execution" });
const watcher = new AegisClient({ apiKey: minted.key });
const execution = await watcher.workflows.run("nightly-etl");

let number = 0;
try {
  for await (const event of watcher.executions.stream(execution.execution_id)) {
    console.log(event.type);
    number += 1;
    if (number === 2) {
      await owner.keys.revoke(minted.id, { reason: "an example" });
    }
  }
} catch (error) {
  if (!(error instanceof KeyRevokedError)) {
    throw error;
  }
  console.log("the key was revoked:", error.code);
}
