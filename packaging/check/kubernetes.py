"""Checks the manifests: each object against the schema of Kubernetes or KEDA, which rejects unknown fields, and
the references between objects, which schemas do not cover. Prints the errors and the number of objects.
"""

import pathlib
import sys

import kubernetes_validate
import yaml
from cloudcoil.models.keda import v1alpha1 as keda

# The oldest and the newest Kubernetes version that the manifests support.
VERSIONS = ["1.31", "1.37"]

# What the loss of one takes along at once.
SPREAD_OVER = {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}


def wrong_by_schema(thing):
    if thing["apiVersion"].startswith("keda.sh/"):
        model = getattr(keda, thing["kind"])
        known = model.model_validate(thing).model_dump(
            mode="json", by_alias=True, exclude_unset=True
        )
        # The model drops unknown fields.
        return None if known == thing else f"it has unknown fields; known are: {known}"
    for version in VERSIONS:
        kubernetes_validate.validate(thing, version, strict=True)
    return None


def wrong_by_reference(things):
    by_name = {(thing["kind"], thing["metadata"]["name"]): thing for thing in things}
    workers = by_name["Deployment", "rpcache-worker"]
    pod = workers["spec"]["template"]
    labels = pod["metadata"]["labels"].items()
    container = pod["spec"]["containers"][0]
    ports = {port["name"] for port in container["ports"]}
    servers = by_name["Secret", "rpcache-servers"]

    for kind in ["Deployment", "PodDisruptionBudget"]:
        selector = by_name[kind, "rpcache-worker"]["spec"]["selector"]["matchLabels"]
        if not selector.items() <= labels:
            yield f"{kind} selects no worker"
    spread = pod["spec"]["topologySpreadConstraints"]
    for constraint in spread:
        if not constraint["labelSelector"]["matchLabels"].items() <= labels:
            yield f"the spread over {constraint['topologyKey']} counts no worker"
    if {constraint["topologyKey"] for constraint in spread} != SPREAD_OVER:
        yield f"the workers are not spread over {sorted(SPREAD_OVER)}"
    fewest = by_name["ScaledObject", "rpcache-worker"]["spec"]["minReplicaCount"]
    evicted = by_name["PodDisruptionBudget", "rpcache-worker"]["spec"]["maxUnavailable"]
    if not 0 < evicted < fewest:
        yield f"of {fewest} workers at least, {evicted} may be evicted at once: none, or all"
    for probe in ["livenessProbe", "readinessProbe"]:
        if container[probe]["httpGet"]["port"] not in ports:
            yield f"{probe} asks a port that is not there"
    wanted = [
        env["valueFrom"]["secretKeyRef"] for env in container["env"] if "valueFrom" in env
    ]
    scaler = by_name["TriggerAuthentication", "rpcache-queue"]["spec"]["secretTargetRef"]
    wanted += scaler
    for key in wanted:
        if key["name"] != "rpcache-servers" or key["key"] not in servers["stringData"]:
            yield f"the Secret has no {key}"
        elif key in scaler and "," in servers["stringData"][key["key"]]:
            yield "KEDA reads one address, not a list"
    scaled = by_name["ScaledObject", "rpcache-worker"]["spec"]
    if scaled["scaleTargetRef"]["name"] != workers["metadata"]["name"]:
        yield "the target of the scaling does not exist"
    for trigger in scaled["triggers"]:
        if ("TriggerAuthentication", trigger["authenticationRef"]["name"]) not in by_name:
            yield "the trigger has no authentication"


def main(folder):
    failures = []
    things = []
    for path in sorted(pathlib.Path(folder).glob("*.yaml")):
        for thing in yaml.safe_load_all(path.read_text()):
            things.append(thing)
            name = f"{path.name}: {thing['kind']} {thing['metadata']['name']}"
            try:
                failure = wrong_by_schema(thing)
            except Exception as error:
                failure = str(error)
            if failure:
                failures.append(f"{name}: {failure}")
    if not failures:
        failures += wrong_by_reference(things)
    for failure in failures:
        print(failure, file=sys.stderr)
    print(f"{len(things)} objects, {len(failures)} failures")
    return 1 if failures or not things else 0


sys.exit(main(sys.argv[1]))
