"""The pipeline's look-ups, the environments, the command line, and what users see of mistakes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from dollmaker.config import reads
from dollmaker.config import settings as config
from dollmaker.config.whole import Config
from dollmaker.launch import pipeline
from dollmaker.launch.preflight import preflight
from dollmaker.runtime import cli
from dollmaker.runtime.errors import ConfigError, DataError, ModelError
from dollmaker.store import sums
from snakemake_here import ROOT, snakemake


def resolved(**changes: Any) -> Config:
    return config.resolved({"dataset": "x", "source": {"kind": "phantoms"}, **changes})


def test_every_stage_can_read_what_it_is_given() -> None:
    full = config.loaded(str(ROOT / "config.yaml"))
    for stage in reads.READS:
        config.loaded(pipeline.stage_config(full, stage))
    config.loaded(pipeline.member_config(full, "a"))
    config.loaded(pipeline.task_config(full, "organs"))
    config.loaded(pipeline.report_config(full))
    recipes = {"doll": {"binarize": [{"otsu": {}}]}, "q": {"binarize": [{"quantile": {}}]}}
    recipes["q"]["attribute"] = "doll"  # type: ignore[assignment]
    other = resolved(recipes=recipes, release={"recipe": "q"})
    given = config.loaded(pipeline.recipe_config(other, "binarize", "q")).dump()
    assert given["recipes"]["q"]["binarize"] == [{"quantile": {}}]
    assert pipeline.recipes_with_maps(other) == ["doll"]
    assert pipeline.relevance_shard(other, "x", "q", "0000").endswith("relevance/doll/0000.h5")


def test_a_change_reaches_the_stages_that_it_concerns_and_no_other() -> None:
    before, after = resolved(), resolved(release={"name": "Other"}, report={"gallery": 3})
    for stage in reads.READS.keys() - {"release"}:
        assert pipeline.stage_config(before, stage) == pipeline.stage_config(after, stage), stage
    assert pipeline.stage_config(before, "release") != pipeline.stage_config(after, "release")
    fewer = resolved(attribute={"max_images": 5}, classify={"epochs": 3})
    for stage in ("list", "decode", "index"):
        assert pipeline.stage_config(before, stage) == pipeline.stage_config(fewer, stage)
    members = {"a": {}, "b": {"seed": 1}}
    two = resolved(classify={"members": members})
    other = resolved(classify={"members": {**members, "b": {"seed": 2}}})
    assert pipeline.member_config(two, "a") == pipeline.member_config(other, "a")
    assert pipeline.member_config(two, "b") != pipeline.member_config(other, "b")


def test_settings_have_a_file_that_is_written_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = pipeline.stage_config(resolved(), "binarize")
    name = pipeline.settings_file("x", "binarize", text, make=False)
    assert not Path(name).exists() and name.startswith("results/x/config/binarize-")
    assert pipeline.settings_file("x", "binarize", text, make=True) == name
    assert config.loaded(name).dump() == config.loaded(text).dump()
    os.utime(name, (1, 1))
    assert pipeline.settings_file("x", "binarize", text, make=True) == name
    assert Path(name).stat().st_mtime == 1
    other = pipeline.stage_config(resolved(prepare={"fit": "crop"}), "binarize")
    assert pipeline.settings_file("x", "binarize", other, make=True) != name
    assert config.loaded(name).dump() == config.loaded(text).dump()


def test_a_given_configuration_replaces_the_default_as_a_whole() -> None:
    default = ROOT / "config.yaml"
    own = pipeline.configure({"dataset": "x", "source": {"kind": "chexpert"}}, default)
    assert own.tasks == {}
    overlaid = pipeline.configure({"seed": 5}, default)
    assert overlaid.seed == 5
    assert set(overlaid.tasks) == {"organs", "infection"}


def test_preflight_finds_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown finding 'Oedema'; use one of: No Finding, Enl"):
        preflight(resolved(attribute={"findings": ["Oedema"]}))
    with pytest.raises(DataError, match="does not exist; set data_root"):
        preflight(resolved(source={"kind": "chexpert"}, data_root=str(tmp_path / "no")))
    members = {"a": {"weights": "w.safetensors"}}
    with pytest.raises(ModelError, match=r"w\.safetensors does not exist"):
        preflight(resolved(classify={"members": members}, weights_root=str(tmp_path)))
    with pytest.raises(
        ModelError, match=r"'b', which is no committee member.* use random, a, or a"
    ):
        preflight(resolved(classify={"members": {"a": {}}}, segment={"init": "b"}))
    with pytest.raises(ModelError, match=r"none\.st does not exist"):
        study = {"inits": ["imagenet"]}
        task = {"images": "i", "masks": "m", "classes": {"c": [1]}}
        adapt = {"imagenet": "none.st"}
        preflight(resolved(study=study, adapt=adapt, tasks={"t": task}))


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"binarize": [{"gate": {}}]}, "no threshold"),
        ({"binarize": [{"clean": {}}, {"otsu": {}}]}, "clean comes before any threshold"),
        ({"attribute": {"committee": "x"}, "binarize": [{"otsu": {}}]}, "which has no members"),
    ],
)
def test_preflight_refuses_a_recipe_that_cannot_end(recipe: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        preflight(resolved(recipes={"doll": recipe}))


def test_preflight_misses_true_masks_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image,class,split,mask\nb.png,x,train,b.png\nc.png,y,train,\n")
    (tmp_path / "b.png").touch()
    columns = {"image_column": "image", "label_column": "class", "split_column": "split"}
    source = {"kind": "table", "table": {"file": "t.csv", "images": ".", **columns}}
    truth = {"kind": "masks", "folder": "masks", "column": "mask", "targets": {"x": [1]}}
    given = {"source": source, "data_root": str(tmp_path), "truth": truth}
    with pytest.raises(DataError, match=r"masks does not exist; correct truth\.folder"):
        preflight(resolved(**given))
    (tmp_path / "masks").mkdir()
    with pytest.raises(DataError, match=r"true mask 'b\.png' of 'b': file is missing"):
        preflight(resolved(**given))
    for name in ("b.png", "masks/b.png"):
        Image.new("L", (8, 8), 1).save(tmp_path / name)
    preflight(resolved(**given))
    task = {"table": "task.csv", "images": ".", "masks": "masks", "classes": {"x": [1]}}
    with pytest.raises(DataError, match=r"task\.csv does not exist; correct tasks\.t\.table"):
        preflight(resolved(**given, tasks={"t": task}))


def test_the_conda_environment_is_the_twin_of_the_pins() -> None:
    pins = dict(
        line.strip().split("==")
        for line in (ROOT / "envs/constraints.txt").read_text().split("# extras")[0].split("\n")
        if "==" in line
    )
    environment = yaml.safe_load((ROOT / "envs/dollmaker.yaml").read_text())
    assert environment["channels"] == ["conda-forge", "bioconda", "nodefaults"]
    names = {"pytorch": "torch", "matplotlib-base": "matplotlib"}
    twins: dict[str, str] = {}
    for entry in environment["dependencies"]:
        if isinstance(entry, dict):
            twins |= dict(re.split(r" ==", item) for item in entry["pip"])
        elif " =" in entry and not entry.startswith("python "):
            name, version = entry.split(" =")
            assert re.fullmatch(r"\d+\.\d+", version), entry
            twins[names.get(name, name)] = version
    assert twins.keys() == pins.keys()
    for name, version in twins.items():
        assert pins[name] == version or pins[name].startswith(version + "."), name


def test_every_dependency_is_pinned() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = sum(project["optional-dependencies"].values(), project["dependencies"])
    names = {re.split(r"[><=\[ ]", entry)[0].lower() for entry in wanted} - {"dollmaker"}
    pins = (ROOT / "envs/constraints.txt").read_text().lower()
    for name in names:
        assert f"\n{name}==" in pins, name


def test_help_does_not_import_the_heavy_libraries() -> None:
    code = (
        "import sys, dollmaker.runtime.cli as c\ntry: c.main(['--help'])\nexcept SystemExit: pass\n"
    )
    code += "assert not {'torch', 'polars', 'numpy', 'snakemake'} & set(sys.modules), 'heavy'"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "workflow")},
    )
    assert done.returncode == 0, done.stderr
    for command in cli.COMMANDS:
        assert command in done.stdout


@pytest.mark.parametrize("command", list(cli.COMMANDS))
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([command, "--help"])
    assert caught.value.code == 0
    assert "usage: dollmaker " + command in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["verify", "absent"], "holds no SHA256SUMS"),
        (
            ["prepare-list", "--data-root", ".", "--output", "x", "--config", "absent"],
            "cannot read",
        ),
        (["prepare-list", "--data-root", ".", "--output", "x", "--config", '{"a": 1}'], "key 'a'"),
        (["phantom", "--images", "0", "--output", "x"], "images"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_code_1(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 1
    shown = capsys.readouterr().err
    assert said in shown
    assert "Traceback" not in shown
    assert len(shown.strip().splitlines()) == 1


def test_an_unknown_command_is_refused_with_the_list() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dollmaker", "classfy"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "workflow")},
    )
    assert done.returncode == 2
    assert "classify" in done.stderr


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"epochs": 3}, "unknown key 'epochs'"),
        ({"source": {"kind": "chexpert"}, "data_root": "nowhere"}, "nowhere does not exist"),
        ({"classify": {"members": {"a": {"weights": "w.st"}}}}, "w.st does not exist"),
    ],
)
def test_the_workflow_refuses_wrong_input_before_any_job(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    (tmp_path / "c.json").write_text(
        json.dumps({"dataset": "x", "source": {"kind": "phantoms"}, **changes})
    )
    done = snakemake(tmp_path, "--configfile", "c.json", "--cores", "1")
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "results").exists()


def test_the_workflow_refuses_a_table_without_the_column(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/t.csv").write_text("file,klass\na.png,x\n")
    table = {"file": "t.csv", "images": ".", "image_column": "file", "label_column": "class"}
    given = {"dataset": "x", "source": {"kind": "table", "table": table}}
    (tmp_path / "c.json").write_text(json.dumps(given))
    done = snakemake(tmp_path, "--configfile", "c.json", "--cores", "1")
    assert done.returncode == 1
    assert "lacks the column 'class'; it has: file, klass" in done.stderr
    table["label_column"] = "klass"
    given["attribute"] = {"findings": ["y"]}
    (tmp_path / "c.json").write_text(json.dumps(given))
    done = snakemake(tmp_path, "--configfile", "c.json", "--cores", "1")
    assert done.returncode == 1
    assert "unknown finding 'y'; use one of: x" in done.stderr


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder, and what a dry run of the embedded default says there on 64 cores."""
    folder = tmp_path_factory.mktemp("plan")
    done = snakemake(folder, "-n", "--cores", "64")
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_the_shim_and_the_snakefile_plan_the_same_jobs(plan: tuple[Path, str]) -> None:
    folder, said = plan
    shim = snakemake(folder, "-s", str(ROOT / "workflow/Snakefile"), "-n", "--cores", "2")
    assert shim.returncode == 0, shim.stderr
    plans = [re.findall(r"^(\w+) +(\d+)$", text, re.MULTILINE) for text in (said, shim.stdout)]
    jobs = [{k: v for k, v in plan if k not in ("all", "catalog", "total")} for plan in plans]
    assert jobs[0] == jobs[1] and jobs[0]["train_member"] == "2"


def test_a_job_that_fails_stops_the_workflow_and_leaves_the_quarantine(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/t.csv").write_text("file,class,split\na.png,x,train\n../b.png,y,train\n")
    (tmp_path / "data/a.png").touch()
    columns = {"image_column": "file", "label_column": "class", "split_column": "split"}
    table = {"file": "t.csv", "images": ".", **columns}
    given = {"dataset": "x", "source": {"kind": "table", "table": table}}
    (tmp_path / "c.json").write_text(json.dumps(given))
    words = ("results/x/index.parquet", "--configfile", "c.json", "--cores", "1")
    done = snakemake(tmp_path, *words)
    assert done.returncode == 1
    assert "2 of 2 images cannot be used" in done.stdout + done.stderr
    assert "MissingOutput" not in done.stderr
    assert not (tmp_path / "results/x/index.parquet").exists()
    assert "leaves the data root" in (tmp_path / "results/x/quarantine.csv").read_text()


def test_what_a_task_is_read_from_decides_whether_it_runs_again() -> None:
    task = {"images": "t/images", "masks": "t/masks", "classes": {"a": [1]}}
    tasks = {
        "folder": task,
        "table": {**task, "table": "t/table.csv"},
        "coco": {**task, "encoding": "coco", "masks": "t/masks.json", "classes": {"a": ["x"]}},
    }
    settings = resolved(tasks=tasks)
    root = pipeline.data_root(settings)
    masks = f"{root}/t/masks"
    assert pipeline.task_files(settings, "folder") == [f"{root}/t/images", masks]
    assert pipeline.task_files(settings, "table") == [f"{root}/t/table.csv", masks]
    assert pipeline.task_files(settings, "coco") == [f"{root}/t/images", f"{root}/t/masks.json"]


def test_a_corrected_mask_is_noticed_and_a_touched_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mask = tmp_path / "masks/left lung/a.png"
    mask.parent.mkdir(parents=True)
    mask.write_bytes(b"old")

    def content() -> str:
        sums._content.cache_clear()  # as a new process has it
        return pipeline.content(resolved(), ["masks"])

    before = content()
    os.utime(mask, (0, 0))
    assert content() == before
    mask.write_bytes(b"new")
    corrected = content()
    assert corrected != before
    # Links to folders are followed, and those that lead back do no harm.
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "masks/heart").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "masks/back").symlink_to(tmp_path / "masks")
    assert content() == corrected
    (tmp_path / "elsewhere/a.png").write_bytes(b"new")
    assert content() != corrected


def test_what_the_workflow_makes_itself_is_no_file_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results/x/phantoms").mkdir(parents=True)
    nothing = pipeline.content(resolved(), [])
    (tmp_path / "results/x/phantoms/t.csv").write_text("t")
    assert pipeline.content(resolved(), ["results/x/phantoms"]) == nothing
    assert pipeline.content(resolved(dataset="y"), ["results/x/phantoms"]) != nothing


def test_the_plan_gives_a_large_machine_to_its_jobs(plan: tuple[Path, str]) -> None:
    rules = re.findall(r"^rule (\w+):(?:\n    .*)*?\n    threads: (\d+)", plan[1], re.MULTILINE)
    assert dict(rules)["train_member"] == "32"
    assert dict(rules)["generate_phantoms"] == "64"
