/**
 * Read several things at once.
 *
 * AEGIS_API_KEY=… AEGIS_BASE_URL=… node many-at-once.ts
 */
import { AegisClient } from "@aegis/sdk";

const client = new AegisClient();

const names: string[] = [];
for await (const agent of client.agents.list({ pageSize: 2 })) {
  names.push(agent.name);
}
for (const agent of await Promise.all(names.map((name) => client.agents.lookup(name)))) {
  console.log(agent.name, "-", agent.description);
}
const quota = await client.volumes.quota();
console.log(`${quota.volumes} volumes, ${quota.used_bytes} bytes`);
