/** Volumes and their files. */
import { type Call, formPath, get, patch, post, remove, type Uploadable } from "./calls.js";
import { formCountedPage, Listing } from "./lists.js";
import type { FilePage, Quota, UploadedFile, Volume, VolumeFile, VolumePage } from "./models.js";
import { type Paged, Resource } from "./resource.js";

/** `client.volumes`. Paths are names with slashes between them. */
export class Volumes extends Resource {
  /** Takes `volume:list`. */
  list({ pageSize }: Paged = {}): Listing<Volume> {
    const call = get(formPath("volumes"), { limit: pageSize });
    return Listing.of(this.transport, call, (page: VolumePage) => formCountedPage(page, page.volumes));
  }

  /** What all volumes use together. Takes `volume:list`. */
  async quota(): Promise<Quota> {
    return await this.transport.fetch(get(formPath("volumes", "quota")));
  }

  /** Takes `volume:read` (`volume:read:VOLUME` is enough). */
  async get(volumeId: string): Promise<Volume> {
    return await this.transport.fetch(get(formPath("volumes", volumeId)));
  }

  /** Takes `volume:create`. */
  async create(
    label: string,
    { sizeLimitBytes }: { readonly sizeLimitBytes?: number | undefined } = {},
  ): Promise<Volume> {
    return await this.transport.fetch(post(formPath("volumes"), { label, size_limit_bytes: sizeLimitBytes }));
  }

  /** Another label, another limit, or both. Takes `volume:update` (`volume:update:VOLUME` is enough). */
  async update(
    volumeId: string,
    change: { readonly label?: string | undefined; readonly sizeLimitBytes?: number | undefined },
  ): Promise<Volume> {
    const body = { label: change.label, size_limit_bytes: change.sizeLimitBytes };
    return await this.transport.fetch(patch(formPath("volumes", volumeId), body));
  }

  /** With all its files. Takes `volume:delete` (`volume:delete:VOLUME` is enough). */
  async delete(volumeId: string): Promise<void> {
    await this.transport.ask(remove(formPath("volumes", volumeId)));
  }

  /** Files and directories, below `path` or all. Takes `volume:read` (`volume:read:VOLUME` is enough). */
  listFiles(
    volumeId: string,
    { path, pageSize }: Paged & { readonly path?: string | undefined } = {},
  ): Listing<VolumeFile> {
    const call = get(formPath("volumes", volumeId, "files"), { path, limit: pageSize });
    return Listing.of(this.transport, call, (page: FilePage) => formCountedPage(page, page.files));
  }

  /** A file's content. Takes `volume:read` (`volume:read:VOLUME` is enough). */
  async download(volumeId: string, path: string): Promise<Uint8Array> {
    const answer = await this.transport.ask(get(formPath("volumes", volumeId, "files", "download"), { path }));
    return answer.body;
  }

  /**
   * Write a file: a text (as UTF-8), bytes, a `Blob`, or a stream of bytes, which is never held.
   *
   * Takes `volume:write` (`volume:write:VOLUME` is enough).
   */
  async upload(volumeId: string, path: string, content: Uploadable): Promise<UploadedFile> {
    const call: Call = {
      method: "POST",
      path: formPath("volumes", volumeId, "files", "upload"),
      query: { path },
      headers: { "Content-Type": "application/octet-stream" },
      content,
    };
    return await this.transport.fetch(call);
  }

  /** A file, or a directory and what is in it. Takes `volume:write` (`volume:write:VOLUME` is enough). */
  async deleteFile(volumeId: string, path: string): Promise<void> {
    await this.transport.ask(remove(formPath("volumes", volumeId, "files"), { path }));
  }

  /** Takes `volume:write` (`volume:write:VOLUME` is enough). */
  async makeDirectory(volumeId: string, path: string): Promise<void> {
    await this.transport.ask(post(formPath("volumes", volumeId, "files", "mkdir"), { path }));
  }

  /** A file or directory, to another name. Takes `volume:write` (`volume:write:VOLUME` is enough). */
  async move(volumeId: string, source: string, target: string): Promise<void> {
    const path = formPath("volumes", volumeId, "files", "move");
    await this.transport.ask(post(path, { from: source, to: target }));
  }
}
