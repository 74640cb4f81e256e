"""What lies in `deploy/` is what Kubernetes, the chart of Dagster and this project take; nothing here asks a cluster."""

import json
import os
import re
import sys
import tomllib
from pathlib import Path, PurePosixPath

import dagster as dg
import jsonschema
import pytest
import yaml
from dagster._config import process_config
from dagster._core.instance.config import dagster_instance_config_schema
from test_architecture import ROOT

from assets.checks import CHECKS
from assets.machines import LIGHT, MACHINES, RUN, STEP, executor_of, machine_of, run_tags
from assets.refresh import FLOW
from ecom_pipeline.definitions import defs
from ecom_pipeline.errors import ClusterError

pytest.importorskip("dagster_k8s", reason="dagster-k8s, of the extra `kubernetes`, is not installed")

from dagster_k8s import K8sRunLauncher, construct_dagster_k8s_job
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.job import UserDefinedDagsterK8sConfig
from dagster_k8s.models import k8s_model_from_dict, k8s_snake_case_dict
from kubernetes import client

DEPLOY = ROOT / "deploy"
PAGE = (ROOT / "docs" / "kubernetes.md").read_text()
VALUES = yaml.safe_load((DEPLOY / "values.yaml").read_text())
MANIFESTS = {
    (one["kind"], one["metadata"]["name"]): one
    for file in ("home.yaml", "service.yaml")
    for one in yaml.safe_load_all((DEPLOY / file).read_text())
}
KINDS = {
    "PersistentVolumeClaim": client.V1PersistentVolumeClaim,
    "ConfigMap": client.V1ConfigMap,
    "Deployment": client.V1Deployment,
    "Service": client.V1Service,
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINNED = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.M))
SETTINGS = MANIFESTS["ConfigMap", "ecom"]["data"]
LOCATION = VALUES["dagster-user-deployments"]["deployments"][0]
LAUNCHER = VALUES["runLauncher"]["config"]["k8sRunLauncher"]
SERVICE = MANIFESTS["Deployment", "ecom-service"]["spec"]["template"]["spec"]
# what the chart knows of each part that we set, in its version of Dagster's; a name that it does not know does nothing
KNOWN = {
    "": {
        *("global", "generatePostgresqlPasswordSecret", "postgresql", "telemetry", "pythonLogs", "concurrency"),
        *("dagsterWebserver", "dagsterDaemon", "dagster-user-deployments", "runLauncher"),
    },
    "dagsterDaemon": {"resources", "runMonitoring"},
    "dagsterWebserver": {"resources"},
    "concurrency": {"enabled", "pools", "runs"},
    "concurrency.pools": {"defaultLimit", "granularity", "opGranularityRunBuffer"},
    "concurrency.runs": {"maxConcurrentRuns", "tagConcurrencyLimits"},
    "dagster-user-deployments": {"enabled", "enableSubchart", "imagePullSecrets", "deployments"},
    "runLauncher": {"type", "config"},
    "runLauncher.config": {"k8sRunLauncher"},
}
OF_A_POD = {  # of a code location: what is handed to Kubernetes as it is
    "envConfigMaps": (client.V1ConfigMapEnvSource, list),
    "envSecrets": (client.V1SecretEnvSource, list),
    "volumes": (client.V1Volume, list),
    "volumeMounts": (client.V1VolumeMount, list),
    "podSecurityContext": (client.V1PodSecurityContext, dict),
    "securityContext": (client.V1SecurityContext, dict),
    "resources": (client.V1ResourceRequirements, dict),
}


def model(kind, given):
    """A typed object of Kubernetes; a field that it does not know is an error."""
    return k8s_model_from_dict(kind, k8s_snake_case_dict(kind, given))


def snake(name):
    return re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", name)


@pytest.fixture(scope="module")
def launcher(tmp_path_factory):
    """The launcher of runs, with what the chart makes of its values; it knows a cluster that is not there."""
    file = tmp_path_factory.mktemp("kube") / "config"
    cluster = {"name": "none", "cluster": {"server": "https://127.0.0.1:1"}}
    context = {"name": "none", "context": {"cluster": "none", "user": "nobody"}}
    user = {"name": "nobody", "user": {}}
    file.write_text(
        json.dumps({"clusters": [cluster], "contexts": [context], "users": [user], "current-context": "none"})
    )
    given = {snake(name): value for name, value in LAUNCHER.items()}
    given |= {name: [one["name"] for one in given[name]] for name in ("env_config_maps", "env_secrets")}
    given["run_k8s_config"] = {snake(name): value for name, value in given["run_k8s_config"].items()}
    given |= {"load_incluster_config": False, "kubeconfig_file": str(file)}
    given |= {"service_account_name": "dagster", "job_namespace": "ecom", "instance_config_map": "dagster-instance"}
    given |= {"dagster_home": "/opt/dagster/dagster_home", "postgres_password_secret": "dagster-postgresql"}
    told = process_config(K8sRunLauncher.config_type(), given)
    assert told.success, told.errors
    return K8sRunLauncher(**told.value)


def pod(launcher, context):
    """The template of a pod as Dagster makes it, refused if it is none."""
    config = context.get_k8s_job_config("ecom-pipeline:0.1.0", launcher)
    job = construct_dagster_k8s_job(config, ["dagster"], "job", user_defined_k8s_config=context.run_k8s_config)
    assert job.spec.ttl_seconds_after_finished == LAUNCHER["runK8sConfig"]["jobSpecConfig"]["ttlSecondsAfterFinished"]
    return job.spec.template.spec


def pod_of_a_run(launcher, assets):
    run = dg.DagsterRun(job_name="refresh", run_id="0" * 8, tags=run_tags(RUN, assets))
    return pod(launcher, K8sContainerContext.create_for_run(run, launcher, include_run_tags=True))


@pytest.mark.parametrize("name", MANIFESTS)
def test_each_manifest_is_what_kubernetes_takes(name):
    assert model(KINDS[name[0]], MANIFESTS[name]).metadata.name == name[1]


@pytest.mark.parametrize("place", KNOWN)
def test_no_value_is_unknown_to_the_chart(place):
    given = VALUES
    for name in filter(None, place.split(".")):
        given = given[name]
    assert given.keys() <= KNOWN[place]


@pytest.mark.skipif(
    "ECOM_CHART_SCHEMA" not in os.environ, reason="ECOM_CHART_SCHEMA names no values.schema.json of the chart"
)
def test_the_values_are_what_the_schema_of_the_chart_takes():
    schema = json.loads(Path(os.environ["ECOM_CHART_SCHEMA"]).read_text(), object_hook=_for_some)
    jsonschema.validate(VALUES, schema)


def _for_some(schema):
    """As `helm` sees it: values that are left out are the chart's own, and types of Kubernetes are checked elsewhere."""
    if isinstance(schema.get("required"), list):
        schema.pop("required")
    if str(schema.get("$ref", "")).startswith("http"):
        schema.pop("$ref")
    return schema


@pytest.mark.parametrize("name", OF_A_POD)
def test_the_code_location_is_what_kubernetes_takes(name):
    kind, form = OF_A_POD[name]
    assert isinstance(LOCATION[name], form)
    for one in LOCATION[name] if form is list else [LOCATION[name]]:
        model(kind, one)


def test_the_rest_of_the_code_location_is_what_the_chart_takes():
    others = {"name", "image", "port", "dagsterApiGrpcArgs", "includeConfigInLaunchedRuns", "nodeSelector"}
    assert LOCATION.keys() - OF_A_POD.keys() == others
    workspace = yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"][0]["python_module"]["module_name"]
    assert LOCATION["dagsterApiGrpcArgs"] == ["--module-name", workspace]


def test_the_settings_of_dagster_are_what_this_version_takes():
    pools, runs = (VALUES["concurrency"][name] for name in ("pools", "runs"))
    given = {
        "telemetry": VALUES["telemetry"],
        "python_logs": {snake(name): value for name, value in VALUES["pythonLogs"].items()},
        "run_monitoring": {snake(name): value for name, value in VALUES["dagsterDaemon"]["runMonitoring"].items()},
        "concurrency": {
            "pools": {snake(name): value for name, value in pools.items()},
            "runs": {snake(name): value for name, value in runs.items()},
        },
    }
    told = process_config(dg.Shape(dagster_instance_config_schema()), given)
    assert told.success, told.errors
    assert runs["maxConcurrentRuns"] == 1  # one run works in a home


def test_runs_and_the_service_work_on_the_node_and_as_the_person_of_the_home(launcher):
    run = pod_of_a_run(launcher, [])
    service = model(client.V1PodSpec, SERVICE)
    location = model(client.V1PodSecurityContext, LOCATION["podSecurityContext"])
    assert run.node_selector == service.node_selector == LOCATION["nodeSelector"]
    assert run.security_context.to_dict() == service.security_context.to_dict() == location.to_dict()
    assert service.security_context.run_as_non_root
    for one in (*run.containers, *service.containers, *service.init_containers):
        assert one.security_context.capabilities.drop == ["ALL"]
        assert not one.security_context.allow_privilege_escalation


def test_runs_and_the_service_have_the_same_home_and_settings(launcher):
    run = pod_of_a_run(launcher, []).containers[0]
    for one in (run, *model(client.V1PodSpec, SERVICE).containers):
        assert "ecom" in [ref.config_map_ref.name for ref in one.env_from if ref.config_map_ref]
        assert "ecom" in [ref.secret_ref.name for ref in one.env_from if ref.secret_ref]
        assert "/data" in [mount.mount_path for mount in one.volume_mounts if mount.name == "home"]
    assert PurePosixPath(SETTINGS["ECOM_HOME"]).parent == PurePosixPath("/data")
    claimed = {one["persistentVolumeClaim"]["claimName"] for one in (SERVICE["volumes"][0], LOCATION["volumes"][0])}
    assert claimed == {"ecom-home"}
    assert ("PersistentVolumeClaim", "ecom-home") in MANIFESTS


def test_the_service_may_write_its_journal_and_neither_what_is_published_nor_its_image():
    (service,) = model(client.V1PodSpec, SERVICE).containers
    read_only = {mount.mount_path: mount.sub_path for mount in service.volume_mounts if mount.read_only}
    published = f"{SETTINGS['ECOM_HOME']}/published"
    assert read_only == {published: published.removeprefix("/data/"), "/keys": None}
    assert service.security_context.read_only_root_filesystem


def test_the_service_is_asked_for_what_it_answers():
    (service,) = SERVICE["containers"]
    asked = {service[name]["httpGet"]["path"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    answered = (ROOT / "ecom_pipeline" / "service" / "app.py").read_text()
    assert asked == {"/health", "/ready"}
    assert all(f'@app.get("{path}"' in answered for path in asked)


@pytest.mark.parametrize("assets", [[], *([name] for name in MACHINES), list(MACHINES)])
def test_the_pod_of_a_run_is_as_large_as_its_largest_asset_asks(launcher, assets):
    needed = machine_of(assets)
    resources = pod_of_a_run(launcher, assets).containers[0].resources
    assert resources.requests == {"cpu": str(needed.cpus), "memory": f"{round(needed.memory_gib * 1024)}Mi"}
    assert resources.limits == {"memory": f"{round(needed.most_gib * 1024)}Mi"}


def test_a_run_that_is_launched_by_hand_has_the_largest_pod():
    needed = machine_of(MACHINES).pod()["container_config"]["resources"]
    assert _mebibytes(LAUNCHER["resources"]) == _mebibytes(needed)


def _mebibytes(resources):
    units = {"Mi": 1, "Gi": 1024}
    given = [resources["requests"]["memory"], resources["limits"]["memory"]]
    return [resources["requests"]["cpu"], *(int(one[:-2]) * units[one[-2:]] for one in given)]


def test_each_step_has_a_pod_of_its_size_and_each_gate_a_light_one(launcher):
    config = executor_of(STEP).apply_config_mapping({"config": {}}).value["config"]
    assert config["max_concurrent"] == 1  # one works in a home
    light = K8sContainerContext(run_k8s_config=UserDefinedDagsterK8sConfig.from_dict(config["step_k8s_config"]))
    run = K8sContainerContext.create_for_run(
        dg.DagsterRun(job_name="refresh", run_id="0" * 8), launcher, include_run_tags=False
    )
    for asset in FLOW:
        own = UserDefinedDagsterK8sConfig.from_dict(config["per_step_k8s_config"][asset.op.name])
        (container,) = pod(launcher, run.merge(light).merge(K8sContainerContext(run_k8s_config=own))).containers
        needed = machine_of(key.to_user_string() for key in asset.keys)
        assert container.resources.requests["memory"] == f"{round(needed.memory_gib * 1024)}Mi"
    (gate,) = pod(launcher, run.merge(light)).containers
    assert gate.resources.requests["cpu"] == str(LIGHT.cpus)


def test_each_asset_that_has_a_machine_exists():
    assert MACHINES.keys() <= {key.to_user_string() for asset in FLOW for key in asset.keys} | {"importance_benchmark"}


def test_without_the_setting_steps_are_done_in_the_process_of_their_run():
    assert defs.executor is executor_of("") is executor_of(RUN) is dg.in_process_executor
    assert run_tags("", MACHINES) == run_tags(STEP, MACHINES) == {}


def test_another_setting_is_refused():
    with pytest.raises(ClusterError, match=r"ECOM_PODS: 1 value is unknown, 'pod'.*'run' or 'step'.*choose one"):
        executor_of("pod")


def test_where_the_package_is_missing_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "dagster_k8s", None)
    with pytest.raises(ClusterError, match=r"1 package is missing.*ecom-pipeline\[kubernetes\]"):
        executor_of(STEP)


def test_the_image_is_made_of_files_that_are_there_and_let_through():
    ignored = (ROOT / ".dockerignore").read_text().split("\n")
    through = {line[1:] for line in ignored if line.startswith("!")}
    copied = [
        name
        for line in re.findall(r"^COPY (?!--from)(.+)$", (DEPLOY / "Dockerfile").read_text(), re.M)
        for name in line.split()[:-1]
    ]
    assert all((ROOT / name).exists() for name in copied)
    assert set(copied) == through
    packages = {"assets", "ecom_pipeline", "resources"}
    assert packages <= through
    assert {PROJECT["readme"], *PROJECT["license-files"], "pyproject.toml", "constraints.txt"} == through - packages


def test_the_extras_of_the_image_exist():
    (extras,) = re.findall(r'^ARG EXTRAS="(.*)"$', (DEPLOY / "Dockerfile").read_text(), re.M)
    assert set(extras.split()) <= PROJECT["optional-dependencies"].keys()
    assert "kubernetes" in extras.split()


def test_all_name_one_image_and_the_chart_of_this_dagster():
    image = f"ecom-pipeline:{PROJECT['version']}"
    named = LOCATION["image"]
    containers = [*SERVICE["containers"], *SERVICE["initContainers"]]
    assert {f"{named['repository']}:{named['tag']}", *(one["image"] for one in containers)} == {image}
    assert image in PAGE
    assert f"--version {PINNED['dagster']}" in PAGE
    major, minor, patch = PINNED["dagster"].split(".")
    library = f"0.{int(minor) + 16}.{patch}"  # libraries of Dagster 1.x are versions 0.(x + 16)
    assert major == "1"
    assert {PINNED["dagster-k8s"], PINNED["dagster-postgres"]} == {library}


def test_no_secret_stands_in_a_file():
    texts = {file.name: file.read_text() for file in DEPLOY.iterdir()}
    secret = re.compile(r"(?i)^\s*-?\s*[\w.-]*(password|token|_key|secret)[\w.-]*\s*[:=]\s*(\S+)", re.M)
    # names of secrets, and that none is to be made of values
    allowed = {"dagster-postgresql", "false", "&secrets", "*secrets", "{secretName:", "{name:"}
    assert {
        name: found for name, text in texts.items() for _, found in secret.findall(text) if found not in allowed
    } == {}
    assert not [kind for kind, _ in MANIFESTS if kind == "Secret"]
    assert not {name for name in SETTINGS if re.search("KEY|PASSWORD|TOKEN|SECRET", name)}


def test_the_page_names_files_that_are_there_and_secrets_that_are_asked_for():
    named = set(re.findall(r"\bdeploy/[\w.]+", PAGE))
    assert named == {f"deploy/{file.name}" for file in DEPLOY.iterdir()}
    made = set(re.findall(r"create secret generic ([\w-]+)", PAGE))
    asked = {one["name"] for one in LOCATION["envSecrets"]} | {VALUES["global"]["postgresqlSecretName"]}
    asked |= {one["secret"]["secretName"] for one in SERVICE["volumes"] if "secret" in one}
    assert made == asked
    assert VALUES["postgresql"]["existingSecret"] in made
    (label,) = LOCATION["nodeSelector"].items()
    assert "label node NODE {}={}".format(*label) in PAGE


def test_the_page_counts_steps_and_gates():
    told = re.search(r"(\d+) assets and the gates of (\d+) are", PAGE)
    assert told is not None
    assert [int(one) for one in told.groups()] == [len(FLOW), len(CHECKS)]
