/** A raw TCP server that plays scripted bytes and keeps everything it was sent. */
import { once } from "node:events";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import type { TestContext } from "node:test";

export type Script = (peer: Peer, request: string) => Promise<void> | void;

/** One connection. */
export class Peer {
  readonly #socket: Socket;

  constructor(socket: Socket) {
    this.#socket = socket;
  }

  send(...pieces: string[]): void {
    for (const piece of pieces) {
      this.#socket.write(piece);
    }
  }

  /** An orderly end. */
  close(): void {
    this.#socket.end();
  }

  reset(): void {
    this.#socket.resetAndDestroy();
  }

  /** Until the other side has hung up. */
  async waitGone(): Promise<void> {
    if (!this.#socket.destroyed) {
      await once(this.#socket, "close");
    }
  }
}

/** Where it listens is its `url`. */
export class Origin {
  readonly requests: string[] = [];
  /** Those that asked for something. */
  readonly peers: Peer[] = [];
  readonly #connected: Socket[] = [];
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  /** The script is played to each request, until the test is over. */
  static async start(test: TestContext, script: Script): Promise<Origin> {
    const server = createServer();
    const origin = new Origin(server);
    server.on("connection", (socket) => origin.#serve(socket, script));
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    test.after(() => origin.#stop());
    return origin;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  #stop(): void {
    for (const socket of this.#connected) {
      socket.destroy();
    }
    this.#server.close();
  }

  #serve(socket: Socket, script: Script): void {
    const peer = new Peer(socket);
    this.#connected.push(socket);
    let received = "";
    socket.on("error", () => undefined);
    socket.on("data", (bytes: Buffer) => {
      received += bytes.toString();
      for (let size = measure(received); size !== undefined; size = measure(received)) {
        const request = received.slice(0, size);
        received = received.slice(size);
        this.requests.push(request);
        if (!this.peers.includes(peer)) {
          this.peers.push(peer);
        }
        void script(peer, request);
      }
    });
  }
}

/** How long the first request is; undefined: it is not all there. Sizes are of ASCII. */
function measure(received: string): number | undefined {
  const head = received.indexOf("\r\n\r\n") + 4;
  if (head < 4) {
    return undefined;
  }
  if (/\r\ntransfer-encoding: chunked\r\n/i.test(received)) {
    const end = received.indexOf("0\r\n\r\n", head);
    return end < 0 ? undefined : end + 5;
  }
  const length = Number(/\r\ncontent-length: *(\d+)\r\n/i.exec(received)?.[1] ?? 0);
  return received.length >= head + length ? head + length : undefined;
}

/** Answer the n-th request with the n-th answer, the last one for ever. */
export function answering(...answers: string[]): Script {
  const remaining = [...answers];
  return (peer) => peer.send((remaining.length > 1 ? remaining.shift() : remaining[0]) ?? "");
}

export function form(status: number, body: unknown = null, ...headers: string[]): string {
  const text = typeof body === "string" ? body : JSON.stringify(body);
  const length = `Content-Length: ${Buffer.byteLength(text)}`;
  return [`HTTP/1.1 ${status} X`, "Content-Type: application/json", length, ...headers, "", text].join("\r\n");
}
