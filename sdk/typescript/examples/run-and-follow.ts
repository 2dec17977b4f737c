/**
 * Run a workflow and follow it to its end.
 *
 * AEGIS_API_KEY=… AEGIS_BASE_URL=… node run-and-follow.ts [workflow]
 */
import { AegisClient, PermissionDeniedError } from "@aegis/sdk";

const client = new AegisClient();
const workflow = process.argv[2] ?? "nightly-etl";

try {
  const execution = await client.workflows.run(workflow, { input: { day: "monday" } });
  console.log("started", execution.execution_id);
  for await (const event of client.executions.stream(execution.execution_id)) {
    console.log(event.type, event.data.line ?? "");
    if (event.data.number === 3) {
      await client.executions.cancel(execution.execution_id);
    }
  }
  console.log((await client.executions.get(execution.execution_id)).status);
} catch (error) {
  if (!(error instanceof PermissionDeniedError)) {
    throw error;
  }
  console.error("this key lacks", error.smallestSufficient);
  process.exitCode = 1;
}
