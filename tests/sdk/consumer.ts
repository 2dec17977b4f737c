// A program of somebody else's, checked strictly: what it expects to be an error must be one, and nothing else may be.

import {
  AegisClient,
  type Agent,
  type AgentSummary,
  type ApiKey,
  type Execution,
  type InputFault,
  type Listing,
  type MintedKey,
  type Page,
  type StreamEvent,
  InputError,
  PermissionDeniedError,
  UnavailableError,
} from "@aegis/sdk";

type Same<One, Other> =
  (<T>() => T extends One ? 1 : 2) extends <T>() => T extends Other ? 1 : 2 ? true : false;

/** `assertType<string>()(value)`: it is that, and neither more nor less. */
function assertType<Expected>(): <Found>(value: Found & (Same<Found, Expected> extends true ? unknown : never)) => void {
  return () => {};
}

export async function use(client: AegisClient): Promise<void> {
  assertType<Listing<AgentSummary>>()(client.agents.list());
  for await (const agent of client.agents.list({ pageSize: 10 })) assertType<AgentSummary>()(agent);
  for await (const page of client.executions.list({ status: "running" }).pages()) assertType<Page<Execution>>()(page);
  assertType<Agent>()(await client.agents.get("a"));
  for await (const event of client.executions.stream("e")) assertType<StreamEvent>()(event);
  assertType<Uint8Array>()(await client.volumes.download("v", "p"));
  const minted = await client.keys.mint("n", { preset: "read-only", expiresIn: "7d", constraints: { max_calls: 1 } });
  assertType<MintedKey>()(minted);
  assertType<string>()(minted.key);
  keep(minted);
  if (minted.status === "active" || minted.status === "a word of tomorrow's") keep(minted);
}

export function keep(key: ApiKey): string {
  return key.id;
}

export async function fail(client: AegisClient): Promise<void> {
  try {
    await client.workflows.run("w", { input: { any: ["thing"] } });
  } catch (error) {
    if (error instanceof PermissionDeniedError) {
      assertType<string[]>()(error.missing);
      assertType<string | undefined>()(error.smallestSufficient);
    } else if (error instanceof InputError) {
      assertType<InputFault[]>()(error.faults);
    } else if (error instanceof UnavailableError) {
      assertType<number | undefined>()(error.retryAfter);
    }
  }
}

export async function mistake(client: AegisClient): Promise<void> {
  // @ts-expect-error
  client.agents.get(7);
  // @ts-expect-error
  (await client.agents.get("a")).nmae;
  // @ts-expect-error
  client.keys.mint("n", { expiresIn: "8d" });
  // @ts-expect-error
  client.keys.mint("n", "read-only");
  // @ts-expect-error
  client.volumes.upload("v", "p", 7);
  // @ts-expect-error
  new AegisClient({ retry: 3 });
  // @ts-expect-error
  client.moods;
  // @ts-expect-error
  assertType<number>()("a string");
}

new AegisClient({ retry: { attempts: 1 }, onKeyExpiry: (expiresAt) => assertType<Date>()(expiresAt) });
