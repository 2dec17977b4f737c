/**
 * The MCP server's tools, as far as this key may use them.
 *
 * npm install @aegis/sdk @modelcontextprotocol/client
 * AEGIS_API_KEY=… AEGIS_BASE_URL=… node tools-over-mcp.ts
 */
import { AegisClient } from "@aegis/sdk";

const session = await new AegisClient().mcp();
try {
  for (const tool of (await session.listTools()).tools) {
    console.log(tool.name);
  }
  const result = await session.callTool({ name: "aegis.workflow.list", arguments: {} });
  console.log(result.isError ? "error" : "ok");
} finally {
  await session.close();
}
