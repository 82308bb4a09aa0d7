"""GPUX inside a job: the two commands of its documentation, as they are written there, and the two folders."""

from __future__ import annotations

import json

import pytest

from tests.e2e.kit import Cluster
from tests.e2e.objects import compose, page, run, source, task, worker

pytestmark = pytest.mark.e2e

SIZES = {"0 B": 0, "1 B": 1, "4 KiB": 4096, "1 GiB": 1 << 30}

# The two lines with curl are the documentation's; the rest makes the file and compares.
DOCUMENTED = "--data-binary @out.zip"
# That option reads the file into memory, less than 1 GiB of it in this curl: "out of memory". This one streams.
STREAMED = "-X POST --upload-file - < out.zip"
BOTH_COMMANDS = """
set -euo pipefail
cd /gpux_job
head -c {size} /dev/urandom > out.zip
SHA1=$(curl -s --unix-socket /gpux_api {body} "http://dontcare/api/file/upload/" | jq -r '.sha1')
test "$SHA1" = "$(sha1sum < out.zip | cut -d' ' -f1)" || {{ echo "upload says $SHA1"; exit 1; }}
curl --unix-socket /gpux_api "http://dontcare/api/file/download/$SHA1" --output source.blend
cmp out.zip source.blend
echo "$SHA1"
"""


@pytest.fixture(scope="module")
def probe(operator: Cluster, namespace: str) -> str:
    operator.apply(namespace, *source("probe", cpu=compose(worker=worker(), side=page())))
    return "probe"


def ran(operator: Cluster, namespace: str, name: str, *, timeout: float = 180) -> str:
    """Return what a script printed; fail if it failed."""
    answer = operator.answer(namespace, name, timeout=timeout)
    assert answer["exit_code"] == 0, answer
    return str(answer["stdout"])


class TestFiles:
    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def tasks(cls, operator: Cluster, namespace: str, probe: str) -> None:
        operator.apply(
            namespace,
            *(
                run(
                    f"size-{size}",
                    probe,
                    BOTH_COMMANDS.format(size=size, body=STREAMED if size >= 1 << 30 else DOCUMENTED),
                    storage={"jobSize": "4Gi"},
                    expirySeconds=900,
                )
                for size in SIZES.values()
            ),
        )

    @pytest.mark.parametrize("size", SIZES.values(), ids=list(SIZES))
    def test_both_commands_as_documented(self, operator: Cluster, namespace: str, size: int) -> None:
        # One GiB is written three times and read as often.
        assert len(ran(operator, namespace, f"size-{size}", timeout=480).strip()) == 40

    def test_a_file_outlives_the_job_that_uploaded_it(
        self, operator: Cluster, namespace: str, probe: str
    ) -> None:
        sha1 = ran(operator, namespace, "size-4096").strip()
        script = f'curl -sf --unix-socket /gpux_api "http://dontcare/api/file/download/{sha1}" | sha1sum'
        operator.apply(namespace, run("fetches", probe, script))
        assert ran(operator, namespace, "fetches").startswith(sha1)

    def test_mistakes_get_honest_codes(self, operator: Cluster, namespace: str, probe: str) -> None:
        ask = 'curl -s -o /tmp/body -w "%{http_code} " --unix-socket /gpux_api'
        script = f"""
            {ask} http://dontcare/api/file/download/{"0" * 40}; jq -e .error /tmp/body
            {ask} http://dontcare/api/file/download/nonsense; jq -e .error /tmp/body
            {ask} http://dontcare/api/nothing; jq -e .error /tmp/body
            {ask} -X DELETE http://dontcare/api/file/upload/; jq -e .error /tmp/body"""
        operator.apply(namespace, run("mistakes", probe, script))
        codes = [line.split()[0] for line in ran(operator, namespace, "mistakes").splitlines()]
        assert codes == ["404", "400", "404", "405"]


def test_only_the_worker_has_the_socket(operator: Cluster, namespace: str, probe: str) -> None:
    operator.apply(namespace, task("who", probe, "work", {"seconds": 600}))
    found = operator.wait_task(namespace, "who", "Available")
    for service, expected in (("worker", "yes"), ("side", "no")):
        (pod,) = operator.pods(namespace, found, service)
        test = "test -S /gpux_api && echo yes || echo no"
        command = ("-n", namespace, "exec", pod["metadata"]["name"], "-c", service, "--", "sh", "-c", test)
        assert operator.kubectl(*command).strip() == expected, service
    operator.kubectl("-n", namespace, "delete", "ogt", "who", "--timeout=300s")


class TestFolders:
    def test_gpux_job_belongs_to_one_job(self, operator: Cluster, namespace: str, probe: str) -> None:
        script = "ls -A /gpux_job | grep -v lost+found; echo mine > /gpux_job/file && cat /gpux_job/file"
        operator.apply(namespace, run("job-1", probe, script, owner="carol"))
        assert ran(operator, namespace, "job-1") == "mine\n"
        operator.apply(namespace, run("job-2", probe, script, owner="carol"))
        assert ran(operator, namespace, "job-2") == "mine\n"

    def test_gpux_usr_belongs_to_its_owner(self, operator: Cluster, namespace: str, probe: str) -> None:
        operator.apply(
            namespace,
            run("alice-writes", probe, "echo hers > /gpux_usr/note", owner="alice"),
            run("nobody", probe, "ls -d /gpux_usr || echo none"),
        )
        ran(operator, namespace, "alice-writes")
        operator.apply(
            namespace,
            run("alice-reads", probe, "cat /gpux_usr/note", owner="alice"),
            run("bob-reads", probe, "ls -A /gpux_usr | grep -v lost+found; true", owner="bob"),
        )
        assert ran(operator, namespace, "alice-reads") == "hers\n"
        assert ran(operator, namespace, "bob-reads") == ""
        assert ran(operator, namespace, "nobody") == "none\n", "a task without an owner has no such folder"

    def test_gpux_usr_is_shared_live(self, operator: Cluster, namespace: str, probe: str) -> None:
        """One waits for what the other writes, which waits until the first one looks."""
        sees = "touch /gpux_usr/looks; until test -s /gpux_usr/sign; do sleep 0.1; done; cat /gpux_usr/sign"
        shows = "until test -e /gpux_usr/looks; do sleep 0.1; done; echo now > /gpux_usr/sign"
        operator.apply(
            namespace, run("sees", probe, sees, owner="dora"), run("shows", probe, shows, owner="dora")
        )
        assert ran(operator, namespace, "sees") == "now\n"


def test_the_token_is_the_agents_alone(operator: Cluster, namespace: str, probe: str) -> None:
    """No container of the job but the agent's can read the token, or reach the store without one."""
    script = """
        env | grep -i token; find / -xdev -name token -not -path '/proc/*' 2>/dev/null
        ls /var/run/secrets 2>/dev/null
        curl -s -m 5 -o /dev/null -w '%{http_code}' http://opengpu-store.opengpu-system:8080/v1/calls
        true"""
    operator.apply(namespace, run("looks-for-it", probe, script))
    # 401 where the policy lets the pod reach the store for its agent, 000 where it doesn't.
    assert ran(operator, namespace, "looks-for-it") in {"401", "000"}


def test_an_answer_above_the_inline_limit_is_in_the_store(
    operator: Cluster, namespace: str, probe: str
) -> None:
    operator.apply(namespace, run("large", probe, "head -c 20000 /dev/zero | tr '\\\\0' x"))
    found = operator.wait_task(namespace, "large")
    (response,) = found["status"]["responses"]
    assert "inline" not in response
    url = f"http://dontcare/api/file/download/{response['sha1']}"
    fetch = f'curl -sf --unix-socket /gpux_api "{url}" | jq -c .exit_code'
    operator.apply(namespace, run("reads-it", probe, fetch))
    assert json.loads(ran(operator, namespace, "reads-it")) == 0
