/**
 * Mint a key for one purpose, use it, give it another secret, end it.
 *
 * AEGIS_API_KEY=… AEGIS_BASE_URL=… node mint-use-rotate.ts     (a key that may make keys, such as one of Full Access)
 */
import { AegisClient, KeyRevokedError, type MintedKey, PermissionDeniedError, SecretRetiredError } from "@aegis/sdk";

const client = new AegisClient();

const minted = await client.keys.mint("nightly", { scopes: ["workflow:run:nightly-etl"] });
console.log("minted", minted.name, minted.scopes);
await use(minted);
const asked = await client.keys.explain(minted.id, { method: "GET", path: "/v1/agents/invoice-reader" });
console.log("explained:", asked.allowed);
await rotate(minted);

async function use({ key }: MintedKey): Promise<void> {
  const nightly = new AegisClient({ apiKey: key });
  console.log("runs", (await nightly.workflows.run("nightly-etl")).subject);
  try {
    await nightly.agents.get("invoice-reader");
  } catch (error) {
    if (error instanceof PermissionDeniedError) {
      console.log("may not:", error.missing);
    }
  }
}

async function rotate({ id, key }: MintedKey): Promise<void> {
  const rotated = await client.keys.rotate(id, { grace: "now" });
  const before = new AegisClient({ apiKey: key });
  const after = new AegisClient({ apiKey: rotated.key });
  try {
    await before.whoami();
  } catch (error) {
    if (error instanceof SecretRetiredError) {
      console.log("the old secret is over");
    }
  }
  console.log("the new one is", (await after.whoami()).name);
  const receipt = await client.keys.revoke(id, { reason: "an example" });
  console.log("revoked, on every instance:", receipt.confirmed);
  try {
    await after.whoami();
  } catch (error) {
    if (error instanceof KeyRevokedError) {
      console.log("ended:", error.code);
    }
  }
}
