"""The tools of the sample server that keep things: volumes, files, git repositories, scripts.  [io]

In: arguments as the platform names them. Out: JSON objects. Refuses to know: disks and remotes.
"""

from __future__ import annotations

import hashlib
from typing import Any

from proxy.demo.sample_faults import InTheWay
from proxy.demo.sample_platform import Platform
from proxy.demo.sample_storage import Repository, Script, store_text
from proxy.demo.tool_table import DESTROYS, READS, WRITES, Answer, tool


class VolumeTools:
    def __init__(self, platform: Platform) -> None:
        self.platform = platform

    @tool("aegis.volume.list", READS)
    async def list_volumes(self) -> Answer:
        """List your volumes."""
        return {"volumes": [volume.describe() for volume in self.platform.volumes.values()]}

    @tool("aegis.volume.create", WRITES)
    async def create_volume(self, label: str, size_limit_bytes: int) -> Answer:
        """Create a volume with a quota."""
        return self.platform.create_volume(label, size_limit_bytes).describe()

    @tool("aegis.volume.delete", DESTROYS)
    async def delete_volume(self, volume_id: str) -> Answer:
        """Delete a volume and everything on it."""
        return {"deleted": self.platform.delete_volume(volume_id).id}

    @tool("aegis.volume.quota", READS)
    async def get_quota(self) -> Answer:
        """Say how much of your storage is used."""
        return dict(self.platform.describe_quota())


class FileTools:
    def __init__(self, platform: Platform) -> None:
        self.platform = platform

    @tool("aegis.file.list", READS)
    async def list_files(self, volume_id: str, path: str = "/") -> Answer:
        """List the files and directories below a path of a volume."""
        volume = self.platform.get_volume(volume_id)
        return {"volume_id": volume.id, "entries": volume.list_names(path)}

    @tool("aegis.file.read", READS)
    async def read_file(self, volume_id: str, path: str) -> Answer:
        """Read a file."""
        return {"path": path, "content": self.platform.read_file(volume_id, path)}

    @tool("aegis.file.write", WRITES)
    async def write_file(self, volume_id: str, path: str, content: str) -> Answer:
        """Write a file, replacing what was there."""
        file = store_text(content)
        self.platform.get_volume(volume_id).put(path, file)
        return {"path": path, "size_bytes": file.size_bytes}

    @tool("aegis.file.mkdir", WRITES)
    async def make_directory(self, volume_id: str, path: str) -> Answer:
        """Make a directory."""
        self.platform.get_volume(volume_id).make_directory(path)
        return {"path": path}

    @tool("aegis.file.delete", DESTROYS)
    async def delete_file(self, volume_id: str, path: str) -> Answer:
        """Delete a file, or a directory with everything in it."""
        return {"deleted": self.platform.get_volume(volume_id).delete(path)}

    @tool("aegis.attachment.read", READS)
    async def read_attachment(self, volume_id: str, path: str) -> Answer:
        """Read a file somebody attached to a conversation."""
        return {"path": path, "content": self.platform.read_file(volume_id, path)}


class GitTools:
    def __init__(self, platform: Platform) -> None:
        self.platform = platform

    @tool("aegis.git.clone", WRITES)
    async def clone(
        self,
        repo_url: str,
        label: str,
        credential_binding_id: str | None = None,
        git_ref: dict[str, str] | None = None,
        sparse_paths: list[str] | None = None,
        auto_refresh: bool = False,
        shallow: bool = True,
    ) -> Answer:
        """Bind a repository to a new volume."""
        repository = Repository(label, repo_url, [self._hash(repo_url)])
        self.platform.repositories[repository.id] = repository
        return self._describe(repository)

    @tool("aegis.git.list", READS)
    async def list_repositories(self, page: int = 1, limit: int = 50) -> Answer:
        """List your repository bindings."""
        found = list(self.platform.repositories.values())[(page - 1) * limit : page * limit]
        return {"repositories": [self._describe(repository) for repository in found]}

    @tool("aegis.git.status", READS)
    async def get_status(self, binding_id: str) -> Answer:
        """Say what a repository binding is at."""
        return self._describe(self.platform.get_repository(binding_id))

    @tool("aegis.git.refresh", WRITES)
    async def refresh(self, binding_id: str) -> Answer:
        """Fetch what is new."""
        repository = self.platform.get_repository(binding_id)
        repository.changes = f"README.md of {repository.label} at {len(repository.commits)}"
        return self._describe(repository)

    @tool("aegis.git.diff", READS)
    async def diff(self, binding_id: str, staged: bool = False) -> Answer:
        """Show what is not committed."""
        changes = self.platform.get_repository(binding_id).changes
        return {"diff": "" if staged or not changes else f"--- a/README.md\n+++ b/README.md\n@@ -1 +1 @@\n+{changes}\n"}

    @tool("aegis.git.commit", WRITES)
    async def commit(self, binding_id: str, message: str) -> Answer:
        """Commit everything that changed."""
        repository = self.platform.get_repository(binding_id)
        if not repository.changes:
            raise InTheWay("there is nothing to commit")
        repository.commits.append(self._hash(f"{repository.commits[-1]} {message} {repository.changes}"))
        repository.changes = ""
        return {"commit": repository.commits[-1], "message": message}

    @tool("aegis.git.push", WRITES)
    async def push(self, binding_id: str, remote: str = "origin", ref: str = "main") -> Answer:
        """Push what is committed."""
        repository = self.platform.get_repository(binding_id)
        count, repository.pushed = len(repository.commits) - repository.pushed, len(repository.commits)
        return {"remote": remote, "ref": ref, "pushed_commits": count}

    @tool("aegis.git.delete", DESTROYS)
    async def delete_repository(self, binding_id: str) -> Answer:
        """Delete a repository binding and its volume."""
        self.platform.get_repository(binding_id)
        return {"deleted": self.platform.repositories.pop(binding_id).id}

    def _hash(self, content: str) -> str:
        return hashlib.sha1(content.encode(), usedforsecurity=False).hexdigest()

    def _describe(self, repository: Repository) -> Answer:
        return {
            "binding_id": repository.id,
            "label": repository.label,
            "repo_url": repository.repo_url,
            "status": "Ready",
            "commit": repository.commits[-1],
        }


class ScriptTools:
    def __init__(self, platform: Platform) -> None:
        self.platform = platform

    @tool("aegis.script.list", READS)
    async def list_scripts(self, tag: str | None = None, q: str | None = None) -> Answer:
        """List your scripts, by tag or by part of the name."""
        found = [
            script
            for script in self.platform.scripts.values()
            if (tag is None or tag in script.tags) and (q or "").lower() in script.name.lower()
        ]
        return {"scripts": [self._describe(script) for script in found]}

    @tool("aegis.script.get", READS)
    async def get_script(self, id: str) -> Answer:
        """Return a script with its history."""
        script = self.platform.get_script(id)
        return self._describe(script) | {"code": script.code, "versions": script.versions}

    @tool("aegis.script.save", WRITES)
    async def save_script(self, name: str, code: str, description: str = "", tags: list[str] | None = None) -> Answer:
        """Save a new script under a name of its own."""
        if any(script.name == name for script in self.platform.scripts.values()):
            raise InTheWay(f"there is a script {name!r} already; update it")
        script = Script(name, code, description, tags or [], [code])
        self.platform.scripts[script.id] = script
        return self._describe(script)

    @tool("aegis.script.update", WRITES)
    async def update_script(
        self, id: str, name: str, code: str, description: str = "", tags: list[str] | None = None
    ) -> Answer:
        """Save a new version of a script."""
        script = self.platform.get_script(id)
        script.name, script.code, script.description, script.tags = name, code, description, tags or []
        script.versions.append(code)
        return self._describe(script)

    @tool("aegis.script.delete", DESTROYS)
    async def delete_script(self, id: str) -> Answer:
        """Delete a script."""
        self.platform.get_script(id)
        return {"deleted": self.platform.scripts.pop(id).name}

    def _describe(self, script: Script) -> dict[str, Any]:
        return {
            "id": script.id,
            "name": script.name,
            "description": script.description,
            "tags": script.tags,
            "version": len(script.versions),
        }
