"""The modules as Spaces: what each holds, and the way to a Hub and back through evaluate.load."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from command_line import invoke
from hub_server import HubServer

import im_datasets
from im_datasets.common.errors import HubError, ModuleNameError
from im_datasets.hub.spaces import make_space, push_modules
from im_datasets.indicators.metric import module_names, module_path

ROOT = Path(__file__).resolve().parents[2]
CONSTRAINTS = (ROOT / ".ci/constraints.txt").read_text()


def pin(package):
    return re.search(rf"^{package}==(\S+)$", CONSTRAINTS, flags=re.MULTILINE)[1]


@pytest.mark.parametrize("name", module_names())
def test_space_holds_the_modules_folder_under_its_own_id(name):
    space = make_space(name, "me")
    assert space.repo_id == f"me/{name}"
    assert sorted(space.files) == sorted(["README.md", "app.py", "requirements.txt", f"{name}.py"])
    for path, content in space.files.items():
        local = (module_path(name) / path).read_text()
        assert content.decode() == local.replace('"metrics/im_', '"me/im_')
    assert f'evaluate.load("me/{name}"' in space.files["README.md"].decode()


@pytest.mark.parametrize("name", module_names())
def test_front_matter_is_that_of_a_gradio_space(name):
    front = yaml.safe_load((module_path(name) / "README.md").read_text().split("---\n")[1])
    assert front["sdk"] == "gradio"
    assert front["app_file"] == "app.py"
    assert {"evaluate", "metric"} <= set(front["tags"])
    assert front["title"]
    assert len(front["short_description"]) <= 60
    assert {front["colorFrom"], front["colorTo"]} <= {
        "red",
        "yellow",
        "green",
        "blue",
        "indigo",
        "purple",
        "pink",
        "gray",
    }
    assert front["license"] == "apache-2.0"
    assert f"gradio=={front['sdk_version']}" in (module_path(name) / "requirements.txt").read_text().splitlines()


@pytest.mark.parametrize("name", module_names())
def test_requirements_are_pinned_to_the_versions_of_the_tests(name):
    lines = (module_path(name) / "requirements.txt").read_text().splitlines()
    expected = [f"im-datasets=={im_datasets.__version__}", f"evaluate=={pin('evaluate')}", f"gradio=={pin('gradio')}"]
    assert lines == expected


def test_gradio_is_no_dependency_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {
        name for name, lines in project["optional-dependencies"].items() if any("gradio" in line for line in lines)
    }
    assert not any("gradio" in line for line in project["dependencies"])
    assert extras == {"spaces"}


def test_package_takes_the_place_of_the_released_version():
    files = make_space("mtld", "me", package=r"git+https://example.org/im-datasets@v1\1").files
    first, *rest = files["requirements.txt"].decode().splitlines()
    assert first == r"git+https://example.org/im-datasets@v1\1"
    assert [line.partition("=")[0] for line in rest] == ["evaluate", "gradio"]


@pytest.mark.parametrize("namespace", ["", "me/you", "-me", "https://hub", "me "])
def test_namespace_must_be_a_name(namespace):
    with pytest.raises(ModuleNameError, match="is no user or organisation of the Hub"):
        make_space("mtld", namespace)


def test_unknown_module_stops_everything():
    with pytest.raises(ModuleNameError, match="no evaluate module 'mtdl'"):
        push_modules("me", only=["mtld", "mtdl"])


def test_dry_run_asks_no_hub_and_names_every_module():
    pushed = push_modules("me", dry_run=True)
    assert [space.repo_id for space in pushed] == [f"me/{name}" for name in module_names()]
    assert {space.status for space in pushed} == {"planned"}


def test_command_shows_its_plan():
    shown = invoke("metrics", "push", "--namespace", "me", "--only", "mtld", "--dry-run")
    assert shown.stdout == "planned    me/im_mtld\n"


ROUND_TRIP = """
import json
import evaluate
from im_datasets.cli.main import app
for turn in range(2):
    only = ["--only", "mtld", "--only", "im_length"]
    app(["metrics", "push", "--namespace", "me", *only, "--private"])
mtld = evaluate.load("me/im_mtld")
print(json.dumps(mtld.compute(predictions=["To be, or not to be, said he."])))
"""


@pytest.mark.slow
def test_push_and_load_round_trip_through_the_hub(tmp_path):
    with HubServer() as hub:
        done = run(hub, ROUND_TRIP, tmp_path)
        commits = len(hub.calls("POST", "/commit/"))
        spaces = {
            name: hub.store.repo("space", name, hub.store.users[hub.login()]) for name in ("me/im_mtld", "me/im_length")
        }
    *lines, result = done.stdout.splitlines()
    status = [line.split()[0] for line in lines]
    assert status == ["created", "created", "unchanged", "unchanged"]
    assert commits == 2
    assert all(space.private for space in spaces.values())
    expected = make_space("mtld", "me").files
    stored = spaces["me/im_mtld"].commit_at("main").files
    assert {path: stored[path].content for path in expected} == dict(expected)
    assert json.loads(result) == {"im_mtld": [8.48], "mean_im_mtld": 8.48, "unscored_im_mtld": 0}


REFUSED = """
from im_datasets.common.errors import HubError
from im_datasets.hub.spaces import push_modules
try:
    push_modules("me", only=["mtld"])
except HubError as error:
    print(error)
"""


EDITED = """
from im_datasets.common.errors import ConflictError
from im_datasets.hub.spaces import push_modules
try:
    (space,) = push_modules("me", only=["mtld"], overwrite=OVERWRITE)
    print(space.status)
except ConflictError as error:
    print(error)
"""


@pytest.mark.slow
def test_what_somebody_else_wrote_in_a_space_stays_unless_told_otherwise(tmp_path):
    plain, forced = EDITED.replace("OVERWRITE", "False"), EDITED.replace("OVERWRITE", "True")
    with HubServer() as hub:
        hub.store.put("me/im_mtld", {"app.py": b"print('mine')\n"}, kind="space")
        foreign = run(hub, plain, tmp_path).stdout
        kept = hub.store.read("me/im_mtld", "app.py", kind="space")
        replaced = run(hub, forced, tmp_path).stdout
        hub.store.put("me/im_mtld", {"notes.md": b"mine"}, kind="space")
        beside = run(hub, plain, tmp_path).stdout
        hub.store.put("me/im_mtld", {"README.md": b"mine"}, kind="space")
        edited = run(hub, plain, tmp_path).stdout
        parents = [body["value"]["parentCommit"] for body in headers_of(hub)]
    assert foreign == (
        "app.py in the Space me/im_mtld is not as im-datasets left it; publish under another name, or pass "
        "overwrite=True (--overwrite) to replace it\n"
    )
    assert kept == b"print('mine')\n"
    assert (replaced, beside) == ("updated\n", "unchanged\n")
    assert edited.startswith("README.md in the Space me/im_mtld is not as im-datasets left it")
    assert len(parents) == 1
    assert all(parents)


def headers_of(hub):
    return [json.loads(call.body.splitlines()[0]) for call in hub.calls("POST", "/commit/")]


@pytest.mark.parametrize(
    "package",
    [
        "im-datasets @ git+https://ghp_0123456789abcdefghijABCDEFGHIJ012345@github.com/me/im.git@main",
        "git+https://sometoken@example.org/im.git",
        "git+https://me:pass1@example.org/im.git",
        "git+ssh://git:pass1@example.org/im.git",
    ],
)
def test_a_secret_in_the_package_is_refused_and_not_repeated(package):
    with pytest.raises(HubError, match="holds a login or token") as caught:
        make_space("mtld", "me", package)
    assert "ghp_" not in str(caught.value)
    assert "token@" not in str(caught.value)
    assert "pass1" not in str(caught.value)


@pytest.mark.parametrize(
    "package",
    [
        "im-datasets @ git+https://example.org/im.git@main",
        "git+ssh://git@example.org/im.git@v1",
        "https://${T}@a.b/c.whl",
    ],
)
def test_an_address_without_a_secret_is_taken(package):
    assert package in make_space("mtld", "me", package).files["requirements.txt"].decode().splitlines()


@pytest.mark.parametrize("package", ["", "a\nb"])
def test_package_must_be_one_requirement(package):
    with pytest.raises(HubError, match="no pip requirement"):
        make_space("mtld", "me", package)


LOST = """
from im_datasets.hub.spaces import push_modules
print(push_modules("me", only=["mtld"])[0].status)
"""


@pytest.mark.slow
def test_a_commit_whose_answer_was_lost_counts_as_made(tmp_path):
    with HubServer() as hub:
        hub.fail("POST", "/commit/", drop=True, done=True)
        done = run(hub, LOST, tmp_path)
    assert done.stdout == "created\n"


@pytest.mark.slow
def test_a_passing_failure_is_tried_again_and_a_refusal_explained(tmp_path):
    with HubServer() as hub:
        hub.fail("POST", "/commit/", status=500)
        done = run(hub, REFUSED, tmp_path, role="write")
        commits = len(hub.calls("POST", "/commit/"))
        unchanged = run(hub, REFUSED, tmp_path, role="read")  # a Space that needs no commit needs no right to write
        hub.store.create("space", "me/im_length")
        refused = run(hub, REFUSED.replace("mtld", "length"), tmp_path, role="read")
    assert (done.stdout, commits) == ("", 2)
    assert unchanged.stdout == ""
    assert "me/im_length: this token may not write there" in refused.stdout


def run(hub, code, folder, role="write"):
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(folder),
        "HF_HOME": str(folder / "hf"),
        "HF_ENDPOINT": hub.endpoint,
        "HF_TOKEN": hub.login(role=role),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done
