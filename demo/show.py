"""The demo: a cluster, the operator in it, and one source whose tasks run on cpu, nvidia and amd.

``demo/run.py up`` prints what it does, step by step, with times; ``down`` removes everything again. Nothing is
simulated but the GPUs of the local cluster: the worker runs OpenGPU's runtime and a real model, and every answer is
compared with what the same model reads outside the cluster.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from demo import outside
from demo.console import Console, paint
from demo.shell import ROOT, DemoError, Shell

CHART = ROOT / "charts" / "opengpu-operator"
RELEASE = "opengpu"
OPERATOR_NAMESPACE = "opengpu-system"
FILES_NAMESPACE = "demo-files"
NAMESPACE = "demo"
DOMAIN = "gpux.localhost"
FILES_HOST = f"files.{FILES_NAMESPACE}.svc.cluster.local"
ENVIRONMENTS = ("cpu", "nvidia", "amd")
WORKER_IMAGE = "localhost/opengpu-demo-worker:dev"
IMAGES = ("localhost/opengpu-operator:dev", "localhost/opengpu-agent:dev", WORKER_IMAGE)
#: What Kubernetes may take on a machine that does other things too: nothing is lost by waiting for a condition.
PATIENCE = "10m"


class Demo:
    """The steps, and what they hand to each other."""

    def __init__(self, provider: str, name: str, registry: str | None) -> None:
        self.provider = provider
        self.name = name
        self.registry = registry
        self.shell = Shell(provider)
        self.console = Console(steps=9)
        self.changed_images = False

    # ------------------------------------------------------------------------------------------------------------ up

    def up(self) -> None:
        """Bring everything up and show it."""
        say = self.console.say
        with self.console.step("A Kubernetes cluster"):
            self.cluster()
        with self.console.step("Images"):
            self.images()
        with self.console.step("The operator, by Helm"):
            self.operator()
        with self.console.step("One source, with a Compose file for each of cpu, nvidia and amd"):
            self.source()
        with self.console.step("The model outside the cluster, which will know the right answers"):
            python, cached = outside.environment(self.shell)
            say("its environment was cached" if cached else f"its environment is in {outside.cache()} now")
            directory = Path(tempfile.mkdtemp(prefix="opengpu-demo-"))
            pictures = outside.pictures(self.shell, python, directory)
            for picture in pictures:
                say(f"{picture.path}: {' / '.join(picture.read)}")
        with self.console.step("A job without a call: it runs until it is deleted, and its port has a URL"):
            url = self.page()
        with self.console.step("Two pictures into the job's store, through that page and /gpux_api"):
            self.upload(pictures)
        with self.console.step(
            f"{len(ENVIRONMENTS) * len(pictures)} calls of the source, in all environments"
        ):
            self.calls(pictures)
        with self.console.step("What kubectl says"):
            self.glance()
        self.next_steps(url, pictures)

    def cluster(self) -> None:
        """Start the cluster, or see that it runs."""
        self.connect()
        nodes = self.shell.get("nodes")["items"]
        rows = [("node", "version", "nvidia.com/gpu", "amd.com/gpu")]
        for node in nodes:
            capacity = node["status"]["allocatable"]
            gpus = (capacity.get("nvidia.com/gpu", "0"), capacity.get("amd.com/gpu", "0"))
            rows.append((node["metadata"]["name"], node["status"]["nodeInfo"]["kubeletVersion"], *gpus))
        self.console.table(rows)
        if self.provider == "local":
            self.console.say(
                "The GPUs are fake: a device plugin offers them, and nothing is behind them.", "yellow"
            )

    def images(self) -> None:
        """Build what changed, and give it to the cluster."""
        before = {image: self.image_id(image) for image in IMAGES}
        # make's own progress is only of interest if it fails.
        self.shell.run("make", "images")
        worker = ("-t", WORKER_IMAGE, "--target", "worker", "demo/worker")
        self.shell.run("localcluster", "build", *worker)
        for image in IMAGES:
            same = before[image] == self.image_id(image)
            self.changed_images |= not same
            self.console.say(f"{image}: {'unchanged' if same else 'built'}")
        if self.registry:
            for image in IMAGES:
                self.shell.stream(self.builder(), "push", image, self.pullable(image))
        else:
            self.shell.stream("localcluster", "load", "--name", self.name, *IMAGES)

    def operator(self) -> None:
        """Install or upgrade the release."""
        values = json.dumps(self.values())
        existed = self.shell.succeeds("helm", "status", RELEASE, "-n", OPERATOR_NAMESPACE)
        arguments = (RELEASE, str(CHART.relative_to(ROOT)), "-n", OPERATOR_NAMESPACE, "--create-namespace")
        self.console.command(f"helm upgrade --install {' '.join(arguments)} --values VALUES --wait")
        self.shell.run(
            "helm",
            "upgrade",
            "--install",
            *arguments,
            "--values",
            "-",
            "--wait",
            "--timeout",
            PATIENCE,
            stdin=values,
        )
        if existed and self.changed_images:
            # The tag is the same, so Helm saw no change.
            self.shell.kubectl("-n", OPERATOR_NAMESPACE, "rollout", "restart", "deployment,statefulset")
            self.shell.kubectl(
                "-n", OPERATOR_NAMESPACE, "rollout", "status", "deployment", f"--timeout={PATIENCE}"
            )
        self.console.say(self.shell.kubectl("-n", OPERATOR_NAMESPACE, "get", "pods"))

    def values(self) -> dict[str, Any]:
        """Return the chart's values for this cluster."""
        operator, agent, _ = (self.pullable(image).rpartition(":") for image in IMAGES)
        settings: dict[str, Any] = {"sources": {"allowedHosts": [FILES_HOST]}}
        if port := self.ingress_port():
            settings["routes"] = {"domain": DOMAIN, "externalPort": port}
        return {
            "image": {"repository": operator[0], "tag": operator[2]},
            "agent": {"image": {"repository": agent[0], "tag": agent[2]}},
            "settings": settings,
        }

    def source(self) -> None:
        """Serve the Compose files inside the cluster, and apply the source."""
        files = {path.name: path.read_text() for path in sorted((ROOT / "demo" / "compose").glob("*.yaml"))}
        image = self.pullable(WORKER_IMAGE)
        files = {name: text.replace(WORKER_IMAGE, image) for name, text in files.items()}
        self.shell.apply(*file_server(files, image), namespace(NAMESPACE))
        # A task and its data never change, so a second run makes them anew; the files may have changed, too.
        self.shell.kubectl("-n", NAMESPACE, "delete", "ogt,ogs", "--all", "--wait", f"--timeout={PATIENCE}")
        self.shell.kubectl(
            "-n", FILES_NAMESPACE, "rollout", "status", "deployment/files", f"--timeout={PATIENCE}"
        )
        self.shell.apply(source_object())
        self.console.command(f"kubectl -n {NAMESPACE} wait --for=condition=Ready ogs/reader")
        self.shell.kubectl(
            "-n", NAMESPACE, "wait", "--for=condition=Ready", "ogs/reader", f"--timeout={PATIENCE}"
        )
        self.console.say(self.shell.kubectl("-n", NAMESPACE, "get", "ogs"))

    def page(self) -> str:
        """Run the job with the page, and return where the page is."""
        self.shell.apply(task_object("page", environment="cpu"))
        self.console.command(f"kubectl -n {NAMESPACE} wait --for=condition=Available ogt/page")
        wait = ("wait", "--for=condition=Available", "ogt/page", f"--timeout={PATIENCE}")
        self.shell.kubectl("-n", NAMESPACE, *wait)
        with self.reach() as url:
            status, body = http("GET", url)
            if status != HTTPStatus.OK:
                raise DemoError(f"{url} answers {status}: {body[:200]!r}")
            title = body.decode().partition("<title>")[2].partition("</title>")[0]
            self.console.say(f"{url} answers {status}, a page with the title {title!r}")
            return url

    def upload(self, pictures: list[outside.Picture]) -> None:
        """Put the pictures into the store of the page's job."""
        with self.reach() as url:
            for picture in pictures:
                status, body = http("POST", f"{url}pictures", picture.content)
                answer = json.loads(body)
                if status != HTTPStatus.OK or answer["sha1"] != picture.sha1:
                    raise DemoError(
                        f"{picture.name}: the store answers {status} {answer}, expected {picture.sha1}"
                    )
                self.console.say(f"{picture.name}.png is {answer['sha1']}, as sha1sum says")

    def calls(self, pictures: list[outside.Picture]) -> None:
        """Call the source for each picture in each environment, and compare the answers."""
        expected = {
            f"{environment}-{picture.name}": picture for environment in ENVIRONMENTS for picture in pictures
        }
        tasks = [
            task_object(name, environment=name.partition("-")[0], call={"sha1": picture.sha1})
            for name, picture in expected.items()
        ]
        self.shell.apply(*tasks)
        wait = ("wait", "--for=condition=Complete", "ogt", "-l", "demo=call", f"--timeout={PATIENCE}")
        self.console.command(f"kubectl -n {NAMESPACE} {' '.join(wait)}")
        self.shell.kubectl("-n", NAMESPACE, *wait)
        rows = [("task", "answer in the cluster", "model outside", "GPUs of model, worker")]
        wrong = []
        for name, picture in expected.items():
            answer = self.shell.get("ogt", name, "-n", NAMESPACE)["status"]["responses"][0]["inline"]
            right = answer["text"] == picture.read
            devices = f"{gpus(answer['devices'])}, {gpus(answer['worker_devices'])}"
            rows.append(
                (name, " / ".join(answer["text"]), "the same" if right else " / ".join(picture.read), devices)
            )
            if not right or not right_devices(name.partition("-")[0], answer):
                wrong.append(name)
        self.console.table(rows)
        if wrong:
            raise DemoError(f"not the right answer, or not the right GPUs: {', '.join(wrong)}")

    def glance(self) -> None:
        """Print the objects as kubectl shows them."""
        self.console.command(f"kubectl -n {NAMESPACE} get ogs,ogt")
        self.console.say(self.shell.kubectl("-n", NAMESPACE, "get", "ogs,ogt"))

    def next_steps(self, url: str, pictures: list[outside.Picture]) -> None:
        """Say how it went, and what else to try."""
        kubeconfig = self.shell.environment.get("KUBECONFIG", "")
        fake = "; the GPUs were fake, all else was real" if self.provider == "local" else ""
        print(paint(f"\nAll answers are right. It took {self.console.seconds:.0f} s{fake}.", "bold", "green"))
        port = " (through kubectl port-forward: this cluster has no ingress that the demo knows)"
        print(f"""
Try next:
  export KUBECONFIG={kubeconfig} PATH={ROOT / ".venv/bin"}:$PATH
  xdg-open {url}     # read a picture of yours{"" if self.ingress_port() else port}
  curl --data-binary @{pictures[0].path} {url}read
  kubectl -n {NAMESPACE} get ogt cpu-invoice -o yaml
  kubectl -n {NAMESPACE} describe ogt nvidia-sign
  kubectl -n {NAMESPACE} delete ogt page     # what it made goes with it
  opengpu translate demo/compose/nvidia.yaml --environment nvidia
  make demo-down""")

    # ---------------------------------------------------------------------------------------------------------- down

    def down(self) -> None:
        """Remove everything."""
        if self.provider == "current":
            self.connect()
            self.uninstall()
        else:
            self.shell.stream("localcluster", "down", "--name", self.name)
        builder = self.builder()
        for image in IMAGES:
            if self.image_id(image):
                self.shell.run(builder, "rmi", image)
                print(f"Image {image} is removed.")
        print(f"Kept, for the next time: what was built once, in {outside.cache().parent}.")

    def uninstall(self) -> None:
        """Remove what the demo put into a cluster that stays."""
        for name in (NAMESPACE, FILES_NAMESPACE):
            self.shell.kubectl(
                "delete", "namespace", name, "--ignore-not-found", "--wait", f"--timeout={PATIENCE}"
            )
        if self.shell.succeeds("helm", "status", RELEASE, "-n", OPERATOR_NAMESPACE):
            self.shell.run(
                "helm", "uninstall", RELEASE, "-n", OPERATOR_NAMESPACE, "--wait", "--timeout", PATIENCE
            )
        self.shell.kubectl(
            "delete", "namespace", OPERATOR_NAMESPACE, "--ignore-not-found", "--wait", f"--timeout={PATIENCE}"
        )
        if not self.shell.get("ogs,ogt", "-A")["items"]:
            crds = ("opengpusources.opengpu.network", "opengputasks.opengpu.network")
            self.shell.kubectl("delete", "crd", *crds, "--ignore-not-found")
        else:
            print("There are other OpenGPU objects in the cluster, so the CRDs stay.")

    # ------------------------------------------------------------------------------------------------------- helpers

    def connect(self) -> None:
        """Start the cluster, or see that it runs; for a cluster of the user's own, ask for its name first."""
        start = self.shell.interact if self.provider == "current" else self.shell.stream
        start("localcluster", "up", "--name", self.name)
        self.shell.use(Path(self.shell.run("localcluster", "kubeconfig", "--name", self.name).strip()))

    def builder(self) -> str:
        """Return the program that has the images."""
        return "docker" if self.provider == "kind" else "buildah"

    def image_id(self, image: str) -> str | None:
        """Return the id of an image that was built before."""
        builder = self.builder()
        form = "{{.Id}}" if builder == "docker" else "{{.FromImageID}}"
        try:
            return self.shell.run(builder, "inspect", "--type", "image", "--format", form, image).strip()
        except DemoError:
            return None

    def pullable(self, image: str) -> str:
        """Return the name by which the cluster knows an image."""
        return f"{self.registry}/{image.removeprefix('localhost/')}" if self.registry else image

    def ingress_port(self) -> int | None:
        """Return the port on this machine at which the cluster's ingress listens; None where it is not known."""
        port = json.loads(self.shell.run("localcluster", "status", "--json", "--name", self.name)).get(
            "ingressPort"
        )
        return int(port) if port else None

    @contextmanager
    def reach(self) -> Iterator[str]:
        """Give the URL of the page: the task's own, or that of a port-forward where there is no ingress."""
        task = self.shell.get("ogt", "page", "-n", NAMESPACE)
        if self.ingress_port():
            yield (
                next(entry["url"] for entry in task["status"]["urls"] if entry["port"] == 8080).rstrip("/")
                + "/"
            )
            return
        pods = self.shell.get("pods", "-n", NAMESPACE, "-l", f"opengpu.network/job={task['status']['jobId']}")
        pod = f"pod/{pods['items'][0]['metadata']['name']}"
        with self.shell.forward(NAMESPACE, pod, 8080) as port:
            yield f"http://localhost:{port}/"

    def diagnose(self) -> None:
        """Print what helps to see why it failed."""
        if "KUBECONFIG" not in self.shell.environment:
            return
        for command in (
            ("get", "pods", "-A", "-o", "wide"),
            ("-n", NAMESPACE, "get", "ogs,ogt"),
            ("-n", NAMESPACE, "describe", "ogs,ogt"),
            ("-n", NAMESPACE, "get", "events", "--sort-by=.lastTimestamp"),
            (
                "-n",
                NAMESPACE,
                "logs",
                "-l",
                "opengpu.network/job",
                "--all-containers",
                "--prefix",
                "--tail=15",
            ),
            ("-n", OPERATOR_NAMESPACE, "logs", "-l", "app.kubernetes.io/component=operator", "--tail=40"),
        ):
            print(paint(f"\n$ kubectl {' '.join(command)}", "bold"), file=sys.stderr)
            try:
                print("\n".join(self.shell.kubectl(*command).splitlines()[-80:]), file=sys.stderr)
            except DemoError as error:
                print(error, file=sys.stderr)


def namespace(name: str) -> dict[str, Any]:
    """Return a namespace."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def file_server(files: dict[str, str], image: str) -> list[dict[str, Any]]:
    """Return a web server for the Compose files."""
    labels = {"app": "files"}
    meta = {"name": "files", "namespace": FILES_NAMESPACE}
    container = {
        "name": "files",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-m", "http.server", "8000", "--directory", "/files"],
        "ports": [{"containerPort": 8000}],
        "readinessProbe": {"httpGet": {"path": "/cpu.yaml", "port": 8000}, "periodSeconds": 1},
        "volumeMounts": [{"name": "files", "mountPath": "/files"}],
    }
    pod = {"containers": [container], "volumes": [{"name": "files", "configMap": {"name": "files"}}]}
    # The files are part of the template, so that a changed file gives a new pod, which has it at once.
    template = {"metadata": {"labels": labels, "annotations": {"files": json.dumps(files)}}, "spec": pod}
    return [
        namespace(FILES_NAMESPACE),
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": files},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": meta,
            "spec": {"selector": {"matchLabels": labels}, "template": template},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta,
            "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 8000}]},
        },
    ]


def source_object() -> dict[str, Any]:
    """Return the source: one Compose file per environment."""
    return {
        "apiVersion": "opengpu.network/v1alpha1",
        "kind": "OpenGPUSource",
        "metadata": {"name": "reader", "namespace": NAMESPACE},
        "spec": {
            "info": {"name": "Reader", "description": "Reads the text in a picture."},
            "imageEnvs": {
                environment: {"composeUrl": f"http://{FILES_HOST}/{environment}.yaml"}
                for environment in ENVIRONMENTS
            },
        },
    }


def task_object(name: str, *, environment: str, call: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return a task: a call of the source, or a job that just runs."""
    spec: dict[str, Any] = {
        "sourceRef": {"name": "reader"},
        "environment": environment,
        "expirySeconds": 3600,
        "storage": {"jobSize": "1Gi"},
    }
    if call is not None:
        spec |= {"functionName": "read_text", "data": call}
    labels = {"demo": "job" if call is None else "call"}
    return {
        "apiVersion": "opengpu.network/v1alpha1",
        "kind": "OpenGPUTask",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels},
        "spec": spec,
    }


def gpus(devices: dict[str, str]) -> str:
    """Return the GPUs that a container was given, for a table."""
    return next((value for value in devices.values() if value not in {"", "void"}), "none")


def right_devices(environment: str, answer: dict[str, Any]) -> bool:
    """Return whether the model had a GPU of its environment, and the worker beside it none of its own."""
    model, worker = gpus(answer["devices"]), gpus(answer["worker_devices"])
    if environment == "cpu":
        return model == worker == "none"
    if environment == "nvidia":
        return "NVIDIA_VISIBLE_DEVICES" in answer["devices"] and model != "none" and worker == "none"
    return "AMD_VISIBLE_DEVICES" in answer["devices"] and model == worker != "none"


def http(method: str, url: str, body: bytes | None = None, *, patience: float = 120) -> tuple[int, bytes]:
    """Ask a job's URL; wait a little for a route that the ingress controller has yet to see."""
    parts = urlsplit(url)
    # Browsers and curl know that *.localhost is this machine; the C library doesn't.
    local = parts.hostname is not None and parts.hostname.endswith(".localhost")
    address = f"http://127.0.0.1:{parts.port}{parts.path}" if local else url
    request = urllib.request.Request(address, data=body, headers={"Host": parts.netloc}, method=method)
    deadline = time.monotonic() + patience
    while True:
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, content = error.code, error.read()
        except OSError as error:
            status, content = 0, str(error).encode()
        routed = status not in {
            0,
            HTTPStatus.NOT_FOUND,
            HTTPStatus.BAD_GATEWAY,
            HTTPStatus.SERVICE_UNAVAILABLE,
        }
        if routed or time.monotonic() > deadline:
            return status, content
        time.sleep(0.2)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__.partition("\n")[0])
    parser.add_argument("action", choices=("up", "down"))
    parser.add_argument("--cluster", choices=("local", "kind", "current"), default="local")
    parser.add_argument("--name", default="local", help="name of the cluster to make or use (default: local)")
    parser.add_argument("--registry", help="with --cluster current: where to push the images, HOST/PATH")
    arguments = parser.parse_args()
    if arguments.action == "up" and arguments.cluster == "current" and not arguments.registry:
        parser.error(
            "the cluster of the current context pulls its images from a registry: name one that you may push to "
            "with --registry HOST/PATH (make demo REGISTRY=HOST/PATH)"
        )
    demo = Demo(arguments.cluster, arguments.name, arguments.registry)
    try:
        demo.up() if arguments.action == "up" else demo.down()
    except DemoError as error:
        if arguments.action == "up":
            demo.diagnose()
        print(paint(f"\nThe demo failed: {error}", "bold", "red"), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; `make demo` goes on, `make demo-down` removes what is there.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
