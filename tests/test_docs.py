"""The documentation holds: links lead somewhere, commands are ones the programs take, flags exist."""

import importlib
import importlib.util
import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
import tyro

from sweeps import cli
from sweeps.question.options import Options

ROOT = Path(__file__).parents[1]
NOT_OURS = {"results", "build", "node_modules"}
DOCUMENTS = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in sorted(ROOT.rglob("*.md"))
    if not any(part.startswith(".") or part in NOT_OURS for part in path.relative_to(ROOT).parts)
}

_LINK = re.compile(r"\[[^\]]*\]\(\s*<?([^)\s>]+)|^\[[^\]]+\]:\s*<?(\S+?)>?\s*$|(?:src|href)=\"([^\"]+)\"", re.MULTILINE)
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+(?:\n[^`\n]+)?)`")


def links(text: str) -> list[str]:
    """Returns the targets of all links and pictures outside code."""
    return ["".join(found) for found in _LINK.findall(_INLINE.sub("", _FENCED.sub("", text)))]


def anchors(text: str) -> set[str]:
    """Returns the anchors that GitHub gives to the headings of a text."""
    headings = re.findall(r"^#+\s+(.*?)\s*$", _FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(text: str) -> Iterator[list[str]]:
    """Yields the words of every command in fenced blocks and inline code that runs one of our programs."""
    blocks = [block for _, block in _FENCED.findall(text)]
    inline = [" ".join(code.split()) for code in _INLINE.findall(_FENCED.sub("", text))]
    for line in "\n".join([*blocks, *inline]).replace("\\\n", " ").splitlines():
        for part in re.split(r"&&|;|\||--\s(?=python)", line):
            found = re.search(r"\bpython3? ((?:-m \w+(?:\.\w+)+|(?:sweeps|analysis)/\w+\.py).*)", part)
            if found:
                yield shlex.split(found[1].rstrip("&"), comments=True)


EVERY_COMMAND = [(document, words) for document, text in DOCUMENTS.items() for words in commands(text)]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links(document: str) -> None:
    broken = []
    for link in links(DOCUMENTS[document]):
        path, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        target = ROOT / (Path(document).parent / path if path else Path(document))
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize(("document", "words"), EVERY_COMMAND, ids=[" ".join(words) for _, words in EVERY_COMMAND])
def test_commands(document: str, words: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Sweeps are planned as they stand (`tests/test_journeys.py` runs those of the README); others are parsed."""
    program, *arguments = words
    if program == "-m":
        name = arguments.pop(0)
        assert importlib.util.find_spec(name) is not None
        if name.startswith(("workloads.", "sweeps.")):
            tyro.cli(importlib.import_module(name).Arguments, args=arguments)
        return
    module = importlib.import_module(program.removesuffix(".py").replace("/", "."))
    if not hasattr(module, "SWEEP"):
        tyro.cli(module.Arguments, args=arguments)
        return
    monkeypatch.chdir(tmp_path)
    if "--gpus-per-trial" in arguments:  # on the cluster it is submitted to
        monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    arguments = [word.replace("s3://bucket", str(tmp_path)).replace("$PWD", str(tmp_path)) for word in arguments]
    with pytest.raises(SystemExit) as end:
        cli.main(module.SWEEP, [*arguments, "--plan"])
    assert end.value.code == 0
    assert list(tmp_path.iterdir()) == []


def test_flags_exist() -> None:
    known = {"help"} | {field.name for field in fields(Options)}
    for path in (ROOT / "analysis").glob("*.py"):
        module = importlib.import_module(f"analysis.{path.stem}")
        known |= {field.name for field in fields(module.Arguments)} if hasattr(module, "Arguments") else set()
    inline = _INLINE.findall(_FENCED.sub("", DOCUMENTS["README.md"]))
    flags = {flag for code in inline if code.startswith("--") for flag in re.findall(r"--(?:no-)?([a-z0-9-]+)", code)}
    assert {flag for flag in flags if flag.replace("-", "_") not in known} == set()


def test_python_in_documents_compiles() -> None:
    for document, text in DOCUMENTS.items():
        for kind, code in _FENCED.findall(text):
            if kind == "python":
                compile(code, document, "exec")


def test_the_way_in() -> None:
    text = DOCUMENTS["README.md"]
    assert "pip install -e . && python sweeps/optimizers.py" in text
    assert "pip install -e '.[test]' && pytest" in text


# -- the checks themselves ------------------------------------------------------------------------------------------


def test_what_is_found_in_a_text() -> None:
    text = """
# One, two & three
See [it](a/b.md#c), ![picture](<p.png>), [that] and `[not](this)`, or `python sweeps/x.py
--epochs 3`.

[that]: https://example.org
```
[nor](that)
pip install x && python sweeps/y.py --lrs 0.1 \\
    0.2  # two rates
ray job submit --working-dir . -- python sweeps/z.py
python -m tests.benchmarks.training_step --profile
```
"""
    assert links(text) == ["a/b.md#c", "p.png", "https://example.org"]
    assert anchors(text) == {"one-two--three"}
    assert list(commands(text)) == [
        ["sweeps/y.py", "--lrs", "0.1", "0.2"],
        ["sweeps/z.py"],
        ["-m", "tests.benchmarks.training_step", "--profile"],
        ["sweeps/x.py", "--epochs", "3"],
    ]
