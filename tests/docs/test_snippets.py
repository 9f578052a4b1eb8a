"""Every Python block of the documentation runs, page by page, top to bottom.

Pages about Django make a project: a block whose first line names a file is that file, and the others run in it. They
run in a process of their own, since Django has one configuration in a process.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "integrations").glob("*/README.md")])
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# ([\w/]+\.py)\n")
PROJECT_PAGES = [page for page in PAGES if "# settings.py\n" in page.read_text()]
PAGES_WITH_CODE = [page for page in PAGES if BLOCK.search(page.read_text()) and page not in PROJECT_PAGES]


@pytest.mark.parametrize("page", PAGES_WITH_CODE, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_code_of_the_page_runs(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = page.read_text()
    module = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)  # some libraries look up the module of a function
    namespace = vars(module)
    for block in BLOCK.finditer(text):
        line = text.count("\n", 0, block.start(1))
        code = compile("\n" * line + block.group(1), str(page), "exec")
        exec(code, namespace)


@pytest.mark.parametrize("page", PROJECT_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_project_of_the_page_runs(page: Path, tmp_path: Path) -> None:
    run = ""
    for block in BLOCK.finditer(page.read_text()):
        named = FILE.match(block.group(1))
        if named is None:
            run += block.group(1)
            continue
        file = tmp_path / named[1]
        file.parent.mkdir(exist_ok=True)
        if file.parent != tmp_path:
            (file.parent / "__init__.py").touch()
        file.write_text((file.read_text() if file.exists() else "") + block.group(1))
    (tmp_path / "run.py").write_text(run)
    ran = subprocess.run(
        [sys.executable, "-W", "error", "run.py"],
        cwd=tmp_path,
        env=os.environ | {"DJANGO_SETTINGS_MODULE": "settings"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_pages_with_code_are_found() -> None:
    assert {"django.md"} <= {page.name for page in PROJECT_PAGES}
    assert {"README.md", "tutorial.md", "explanation.md"} <= {page.name for page in PAGES_WITH_CODE}


LINK = re.compile(r"\[[^\]]+\]\((?!https?://)([^)#]+)(#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_links_of_the_page_lead_somewhere(page: Path) -> None:
    for target, _ in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), target
