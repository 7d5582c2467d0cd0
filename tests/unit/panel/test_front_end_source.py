"""Rules of the front end's source that no compiler checks."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

FRONTEND = Path(__file__).parents[3] / "jupyter_extension" / "frontend"
STATIC = Path(__file__).parents[3] / "p2pnb" / "panel" / "static"
SOURCES = sorted(path for path in (FRONTEND / "src").rglob("*") if path.suffix in {".ts", ".tsx"})

# Everything by which text becomes markup, code or an address.
DANGEROUS = re.compile(
    r"dangerouslySetInnerHTML|innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function"
    r"|createContextualFragment|DOMParser|srcdoc|\bhref=|\bsrc=|\bstyle=|\.setAttribute\("
)


def test_no_text_can_become_markup_code_or_an_address() -> None:
    assert len(SOURCES) > 20
    found = [f"{path.name}: {match}" for path in SOURCES for match in DANGEROUS.findall(path.read_text())]
    assert found == []


def test_components_take_models_and_never_send_to_a_port() -> None:
    for path in (FRONTEND / "src" / "components").iterdir():
        imports = re.findall(r'^import (?!type).*from "\.\./ports/([\w.]+)"', path.read_text(), re.MULTILINE)
        assert set(imports) <= {"dropped.ts"}, path.name


def test_colours_come_from_the_theme() -> None:
    css = re.sub(r"/\*.*?\*/", "", (FRONTEND / "src" / "style.css").read_text(), flags=re.DOTALL)
    fixed = re.findall(r"^\s*([\w-]+):[^;]*(?:#[0-9a-fA-F]{3,8}\b|\brgba?\(|\bhsla?\()", css, re.MULTILINE)
    assert [name for name in fixed if not name.startswith("--p2p-fallback-")] == ["fill", "fill"]  # the QR code


def test_the_lock_file_names_no_registry_host() -> None:
    lock = json.loads((FRONTEND / "package-lock.json").read_text())
    assert [name for name, entry in lock["packages"].items() if "resolved" in entry] == []
    assert "http" not in json.dumps({name: entry.get("version") for name, entry in lock["packages"].items()})


def test_python_and_typescript_speak_of_the_same_commands_and_limits() -> None:
    from p2pnb.panel import protocol
    from p2pnb.protocol import wire

    source = (FRONTEND / "src" / "ports" / "protocol.ts").read_text()
    interface = source[source.index("export interface Commands {") :]
    commands = set(re.findall(r"^  (\w+): \{", interface[: interface.index("\n}")], re.MULTILINE))
    assert commands == {command.__struct_config__.tag for command in protocol.Command.__args__}
    for name in ("MAX_MESSAGES", "MAX_ITEMS", "MAX_SHARES", "MAX_UPLOAD_FILES"):
        (number,) = re.findall(rf"{name} = ([\d_]+);", source)
        assert int(number) == getattr(protocol, name)
    assert f"MAX_PART_COLUMNS = {wire.MAX_PREVIEW_COLUMNS};" in source


@pytest.mark.skipif(not (STATIC / "panel.js").exists(), reason="the front end is not built: run `make build`")
def test_the_built_module_is_one_small_file() -> None:
    module = (STATIC / "panel.js").read_text()
    assert len(module.encode()) < 150_000
    assert not re.search(r'\bimport\s*[({"\']|\bfrom\s*["\']', module)
