"""The shape of the repository: which package may import which, and that what the documents say exists."""

from __future__ import annotations

import argparse
import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("dali_pipes", "ascnet", "bench")
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
# Those of `ascnet finetune` and `ascnet linear`; the others are of `ascnet pretrain`.
RECIPES = [path for path in CONFIGS if path.stem.startswith(("finetune_", "linear_"))]
DOCUMENTS = [path for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))] if path.is_file()]
# The mathematics of the method: usable with any source of clips.
METHOD = ("model", "loss", "heads", "ema", "bank", "encoders")


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Names of all imported modules, wherever in the file, with their lines; relative ones made absolute."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                folder = path.relative_to(ROOT).parts[: -node.level]
                base = ".".join([*folder, base]).rstrip(".")
            yield base, node.lineno
            # `from dali_pipes import loader` imports a module as well.
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)


def inside(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def is_module(name: str) -> bool:
    """Whether a dotted name is a module of this repository, and not something defined in one."""
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def arrows(package: str, forbidden: tuple[str, ...]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in modules(package)
        for name, line in imports(path)
        if any(inside(name, other) for other in forbidden)
    ]


@pytest.mark.parametrize(
    ("package", "forbidden"), [("dali_pipes", ("ascnet", "bench", "tests")), ("ascnet", ("bench", "tests"))]
)
def test_no_arrow_points_upwards(package: str, forbidden: tuple[str, ...]) -> None:
    assert modules(package)
    assert arrows(package, forbidden) == []


def test_an_upward_arrow_would_be_seen() -> None:
    # bench stands above both, so the same search must find its imports.
    assert arrows("bench", ("dali_pipes",))


def test_in_bench_commands_stand_above_all_and_what_is_shared_below() -> None:
    upward = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in modules("bench")
        for name, line in imports(path)
        if name.startswith("bench.commands.") and is_module(name) and path.parent.name != "commands"
    ]
    assert upward == []
    lowest = [arrow for arrow in arrows("bench", ("bench",)) if arrow.startswith("bench/measure/")]
    assert [arrow for arrow in lowest if "bench.measure" not in arrow and "bench.peers" not in arrow] == []


def test_ascnet_uses_only_the_public_face_of_dali_pipes() -> None:
    beyond = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in modules("ascnet")
        for name, line in imports(path)
        if inside(name, "dali_pipes") and name != "dali_pipes" and is_module(name)
    ]
    assert beyond == []


def test_everything_that_ascnet_takes_from_dali_pipes_is_public() -> None:
    import dali_pipes

    taken = {
        name.partition(".")[2] for path in modules("ascnet") for name, _ in imports(path) if inside(name, "dali_pipes")
    }
    assert taken - {""} <= set(dali_pipes.__all__)


@pytest.mark.parametrize("part", METHOD)
def test_the_method_itself_knows_nothing_of_videos(part: str) -> None:
    path = ROOT / "ascnet" / part
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    assert [f"{file}: {name}" for file in files for name, _ in imports(file) if inside(name, "dali_pipes")] == []


def test_importing_a_package_loads_no_package_above_it() -> None:
    code = (
        "import sys, dali_pipes, ascnet\n"
        "print(sorted(name for name in sys.modules if name.partition('.')[0] in ('bench', 'tests')))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


@pytest.mark.parametrize("path", [path for path in CONFIGS if path not in RECIPES], ids=lambda path: path.stem)
def test_every_configuration_loads_and_builds_its_encoder(path: Path) -> None:
    from ascnet import Config, build_encoder

    model = Config.load(path).model
    assert build_encoder(model.encoder, width=min(model.width, 0.25), **model.options).dim > 0


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_of_recognition_loads_and_names_an_encoder_that_there_is(path: Path) -> None:
    from ascnet import build_encoder
    from ascnet.evaluate.recognise_config import RecogniseConfig

    model = RecogniseConfig.load(path).model
    assert model.frozen == path.stem.startswith("linear_")
    if model.encoder is not None:  # the checkpoint says
        assert build_encoder(model.encoder, width=min(model.width, 0.25), **model.options).dim > 0


def test_there_are_configurations_for_the_demo_and_the_published_settings() -> None:
    assert {"base", "demo", "demo_long", "ucf101", "kinetics400", "weizmann"} <= {path.stem for path in CONFIGS}


def commands(text: str) -> Iterator[list[str]]:
    """Words of each command in the shell blocks of a Markdown text, continued lines joined, comments cut."""
    for block in re.findall(r"```(?:bash|sh|console)\n(.*?)```", text, flags=re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
                words = words[1:]
            if words:
                yield words


def parsers() -> dict[str, argparse.ArgumentParser]:
    """The argument parsers of both commands, by the name that calls them."""
    from ascnet import cli as ascnet_cli
    from dali_pipes import cli as pipes_cli

    return {"ascnet": ascnet_cli.parser(), "dali-pipes": pipes_cli.parser()}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_in_the_documents_exist_with_their_options(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    known = parsers()
    for words in commands(document.read_text(encoding="utf-8")):
        line = " ".join(words)
        if words[0] == "make":
            asked = [word for word in words[1:] if "=" not in word]
            assert set(asked) <= targets, line
        elif words[0] in known:
            parser: argparse.ArgumentParser = known[words[0]]
            options = {option for action in parser._actions for option in action.option_strings}
            if len(words) > 1 and not words[1].startswith("-"):
                subparsers = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
                assert words[1] in subparsers.choices, line
                options = set(subparsers.choices[words[1]]._option_string_actions)
            assert {word.partition("=")[0] for word in words if word.startswith("--")} <= options, line
        elif words[:3] == ["python", "-m", "bench"] and len(words) > 3:
            assert (ROOT / "bench" / "commands" / f"{words[3].replace('-', '_')}.py").is_file() or words[3].startswith(
                "-"
            ), line


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_no_file_of_code_is_too_long_to_read() -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for package in PACKAGES
        for path in modules(package)
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > 450
    }
    assert long == {}


def test_bench_answers_help() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--help"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and "python -m bench" in done.stdout
