import os
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
import setuptools

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted([*(ROOT / "scripts").glob("*.sh"), ROOT / ".ci" / "run"])
REQUIREMENTS = ROOT / "requirements"
PINS, LEGACY = ("pins.txt", "pins-py39.txt"), "pins-legacy.txt"


def read_lines(name):
    lines = (REQUIREMENTS / name).read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def read_wanted(*names):
    """Required packages, but for Triton, whose version PyTorch chooses."""
    lines = {line for name in names for line in read_lines(name)}
    return {line for line in lines if not line.startswith("triton;")}


def read_pins(name):
    return dict(line.split("==") for line in read_lines(name))


@pytest.fixture(scope="module")
def metadata():
    """The arguments of setup.py."""
    declared = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", lambda **kwargs: declared.update(kwargs))
        runpy.run_path(str(ROOT / "setup.py"))
    return declared


def test_setup__requires_the_core_and_training_is_an_extra(metadata):
    assert metadata["install_requires"] == ["numpy", "soundfile", "torch>=2.1"]
    version = read_pins("pins.txt")["fairseq-fixed"]
    training = metadata["extras_require"]["train"]
    assert training == [f"fairseq-fixed=={version}", "hydra-core", "omegaconf"]


def test_setup__names_the_extras_that_the_command_does(metadata):
    from eat_plugin.cli import EXTRAS, PACKAGES

    for extra, modules in EXTRAS.items():
        required = {re.split("[=><]", name)[0] for name in metadata["extras_require"][extra]}
        named = {PACKAGES.get(module, module) for module in modules}
        assert named <= {name.replace("fairseq-fixed", "fairseq") for name in required}


def test_setup__states_version_python_and_command(metadata):
    import eat_plugin

    assert metadata["version"] == eat_plugin.__version__
    assert metadata["python_requires"] == ">=3.9"
    assert metadata["license"] == "MIT"
    (script,) = metadata["entry_points"]["console_scripts"]
    assert script == "eat = eat_plugin.cli:main"


def test_setup__packages_hold_every_module(metadata):
    found = setuptools.find_packages(str(ROOT), include=["eat_plugin", "eat_plugin.*"])
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "eat_plugin").rglob("*.py")}
    assert set(found) == {".".join(folder.parts) for folder in folders}


def test_setup__packages_hold_no_benchmarks(monkeypatch):
    declared = {}
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(setuptools, "setup", lambda **kwargs: declared.update(kwargs))
    runpy.run_path("setup.py")
    assert {name.split(".")[0] for name in declared["packages"]} == {"eat_plugin"}


def test_wheel_and_sdist__hold_configurations_and_classes(tmp_path):
    if int(setuptools.__version__.partition(".")[0]) < 71:  # later ones need no wheel
        pytest.importorskip("wheel")
    others = shutil.ignore_patterns(".git", ".venv*", "*.egg-info", "build", "runs", "data", "site")
    compiled = shutil.ignore_patterns("__pycache__")  # other tests may be writing there
    source = tmp_path / "source"
    shutil.copytree(
        ROOT,
        source,
        symlinks=True,
        ignore=lambda folder, names: (others if Path(folder) == ROOT else compiled)(folder, names),
    )
    build = "from setuptools.build_meta import *; build_sdist('../out'); build_wheel('../out')"
    result = subprocess.run(
        [sys.executable, "-c", build], cwd=source, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    (wheel,), (sdist,) = (tmp_path / "out").glob("*.whl"), (tmp_path / "out").glob("*.tar.gz")
    configs = {
        str(path.relative_to(ROOT)) for path in (ROOT / "eat_plugin" / "config").rglob("*.yaml")
    }
    assert configs
    configs.add("eat_plugin/data/class_labels_indices.csv")
    with zipfile.ZipFile(wheel) as archive:
        assert configs <= set(archive.namelist())
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert configs | {"requirements/pins.txt"} <= names


@pytest.mark.parametrize("name", [*PINS, LEGACY])
def test_pins__are_exact_sorted_and_name_no_build(name):
    lines = read_lines(name)
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9.-]+==[0-9][0-9a-z.]*", line)] == []
    names = [line.split("==")[0] for line in lines]
    assert names == sorted(set(names))


@pytest.mark.parametrize("name", PINS)
def test_pins__cover_all_installed_packages(name, metadata):
    wanted = read_wanted("build.txt", "run.txt", "dev.txt")
    assert wanted <= set(read_pins(name))
    needed = {name.partition(">=")[0] for name in metadata["install_requires"]}
    assert needed <= {"torch", *read_lines("run.txt"), "numpy"}
    for extra in ("completion", "plot", "tensorboard", "dev"):
        assert set(metadata["extras_require"][extra]) <= wanted


def test_pins__older_stack_covers_the_tests():
    wanted = read_wanted("run.txt", "dev.txt")
    pins = read_pins(LEGACY)
    assert wanted - {"fairseq-fixed", "mkdocs-material", "mypy", "ruff"} <= set(pins)
    assert pins["fairseq"] == "0.12.2"
    assert pins["torch"].startswith("2.1.")


def test_pins__agree_on_fairseq_and_its_configuration():
    newer, older = map(read_pins, PINS)
    for name in ("fairseq-fixed", "hydra-core", "omegaconf", "antlr4-python3-runtime"):
        assert newer[name] == older[name]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts__parse_and_stop_at_errors(script):
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    assert "set -euo pipefail" in script.read_text()


def test_files__do_not_name_package_hosts():
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    # Joined here, so that this file does not contain them.
    hosts = [f"{host}.org" for host in ("pypi", "pythonhosted", "download.pytorch")]
    options = [f"--{option}" for option in ("index-url", "extra-index-url", "find-links")]
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path.is_file():
            content = path.read_bytes()
            named = [word for word in hosts + options if word.encode() in content]
            assert not named, f"{name} names {named}"


@pytest.fixture
def checkout(tmp_path):
    """The set-up scripts in a folder with a space in its name."""
    root = tmp_path / "a checkout"
    for name in ("scripts", "requirements"):
        shutil.copytree(ROOT / name, root / name)
    shutil.copy(ROOT / "setup.py", root)
    return root


def run_script(checkout, name, *arguments, **environment):
    settings = {
        k: v for k, v in os.environ.items() if k not in ("PYTHON", "DATA", "UPDATES", "CXX")
    }
    return subprocess.run(
        ["bash", str(checkout / "scripts" / name), *arguments],
        env={**settings, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("name", "environment", "message"),
    [
        ("quickstart.sh", {"DATA": "/no/such"}, "quickstart: DATA=/no/such is not a folder"),
        ("quickstart.sh", {"UPDATES": "0"}, "quickstart: UPDATES=0 is not a whole number"),
        ("quickstart.sh", {"UPDATES": "1e3"}, "quickstart: UPDATES=1e3 is not a whole number"),
        ("setup.sh", {"PYTHON": "/no/python"}, "setup: PYTHON=/no/python is not a command"),
    ],
)
def test_scripts__errors_are_one_line(checkout, name, environment, message):
    result = run_script(checkout, name, **environment)
    assert result.returncode == 2
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1
    assert not (checkout / ".venv").exists()


needs_headers = pytest.mark.skipif(
    not Path(sysconfig.get_paths()["include"], "Python.h").is_file()
    or sys.version_info >= (3, 14)
    or not any(map(shutil.which, ("c++", "g++", "clang++"))),
    reason="setup.sh itself refuses an interpreter without headers, or a missing compiler",
)


@needs_headers
def test_setup_sh__missing_compiler_is_an_error_at_start(checkout, tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "dirname").symlink_to(shutil.which("dirname"))
    bash = shutil.which("bash")
    result = subprocess.run(
        [bash, str(checkout / "scripts" / "setup.sh")],
        env={"PATH": str(tools), "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert "needed: a C++ compiler" in result.stderr
    assert not (checkout / ".venv").exists()


@pytest.fixture
def fake_python(tmp_path):
    """An interpreter whose environments record the calls of pip and install nothing.

    The call with the number in the file ``fails`` fails; for ``kill`` it kills itself.
    """
    calls, fails = tmp_path / "calls", tmp_path / "fails"
    inner = f"""#!{shutil.which("bash")}
if [ "$1 $2" = "-m pip" ]; then
    echo "$*" >>"{calls}"
    case $(cat "{fails}" 2>/dev/null) in
    fail) echo "no such package"; exit 1 ;;
    kill) kill -9 $$ ;;
    esac
    exit 0
fi
exec "{sys.executable}" "$@"
"""
    path = tmp_path / "python"
    path.write_text(
        f"""#!{shutil.which("bash")}
if [ "$1 $2" = "-m venv" ]; then
    rm -rf "$4" && mkdir -p "$4/bin" && cp "{tmp_path}/inner" "$4/bin/python"
    echo venv >>"{calls}"
    exit
fi
exec "{sys.executable}" "$@"
"""
    )
    (tmp_path / "inner").write_text(inner)
    for file in (path, tmp_path / "inner"):
        file.chmod(0o755)
    return path


def take_calls(tmp_path):
    calls = tmp_path / "calls"
    lines = calls.read_text().splitlines() if calls.exists() else []
    calls.unlink(missing_ok=True)
    return lines


@needs_headers
def test_setup_sh__installs_once(checkout, fake_python, tmp_path):
    result = run_script(checkout, "setup.sh", PYTHON=str(fake_python))
    assert result.returncode == 0, result.stderr
    venv, build, run, plugin = take_calls(tmp_path)
    pins = "pins.txt" if sys.version_info >= (3, 11) else "pins-py39.txt"
    assert venv == "venv"
    assert "build.txt" in build
    assert all(call.endswith(f"requirements/{pins}") for call in (build, run))
    assert "--no-build-isolation" in run
    assert plugin.endswith(f"--no-deps --no-build-isolation -e {checkout}")

    again = run_script(checkout, "setup.sh", PYTHON=str(fake_python))
    assert (again.returncode, again.stdout, take_calls(tmp_path)) == (0, "", [])


@needs_headers
def test_setup_sh__dev_extends_the_environment(checkout, fake_python, tmp_path):
    run_script(checkout, "setup.sh", PYTHON=str(fake_python))
    take_calls(tmp_path)
    assert run_script(checkout, "setup.sh", "dev", PYTHON=str(fake_python)).returncode == 0
    (dev,) = take_calls(tmp_path)
    assert "dev.txt" in dev
    run_script(checkout, "setup.sh", "dev", PYTHON=str(fake_python))
    run_script(checkout, "setup.sh", PYTHON=str(fake_python))
    assert take_calls(tmp_path) == []


@needs_headers
def test_setup_sh__changed_pins_or_path_reinstall(checkout, fake_python, tmp_path):
    run_script(checkout, "setup.sh", PYTHON=str(fake_python))
    take_calls(tmp_path)
    pins = checkout / "requirements" / "pins.txt"
    pins.write_text(pins.read_text() + "another==1\n")
    run_script(checkout, "setup.sh", PYTHON=str(fake_python))
    assert take_calls(tmp_path)[0] == "venv"
    moved = checkout.rename(tmp_path / "moved")
    run_script(moved, "setup.sh", PYTHON=str(fake_python))
    assert take_calls(tmp_path)[0] == "venv"


@needs_headers
def test_setup_sh__failure_shows_the_log_and_is_retried(checkout, fake_python, tmp_path):
    (tmp_path / "fails").write_text("fail")
    result = run_script(checkout, "setup.sh", PYTHON=str(fake_python))
    assert result.returncode == 1
    assert "no such package" in result.stderr
    assert str(checkout / ".venv" / "setup.log") in result.stderr
    (tmp_path / "fails").unlink()
    take_calls(tmp_path)
    assert run_script(checkout, "setup.sh", PYTHON=str(fake_python)).returncode == 0
    assert len(take_calls(tmp_path)) == 4


@needs_headers
def test_setup_sh__after_a_kill_reinstalls(checkout, fake_python, tmp_path):
    run_script(checkout, "setup.sh", PYTHON=str(fake_python))
    (tmp_path / "fails").write_text("kill")
    assert run_script(checkout, "setup.sh", "dev", PYTHON=str(fake_python)).returncode == 137
    (tmp_path / "fails").unlink()
    take_calls(tmp_path)
    assert run_script(checkout, "setup.sh", PYTHON=str(fake_python)).returncode == 0
    assert take_calls(tmp_path)[0] == "venv"
