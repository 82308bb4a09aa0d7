"""Which pods a file becomes, and which service is the main one."""

import pytest

from opengpu_operator.api.errors import Invalid
from opengpu_operator.api.translation import Port, Restart, Until
from opengpu_operator.desired import plan
from opengpu_operator.desired.plan import Wait
from opengpu_operator.desired.problems import Problems
from tests.support.jobs import context, service, translation, waits, worker

CALL = {"functionName": "chat"}


def make(*services, spec=None, **fields):
    problems = Problems()
    found = plan.make(translation(*services), context(spec=spec or {}, **fields), problems)
    problems.stop()
    return found


def unit(found, component):
    return next(unit for unit in found.units if unit.component == component)


class TestKind:
    @pytest.mark.parametrize(
        ("restart", "in_a_call", "in_a_job"),
        [
            (Restart.UNSET, "Deployment", "Job"),
            (Restart.ALWAYS, "Deployment", "Deployment"),
            (Restart.NO, "Job", "Job"),
            (Restart.ON_FAILURE, "Job", "Job"),
        ],
    )
    def test_follows_restart(self, restart, in_a_call, in_a_job):
        services = worker(), service("other", restart=restart)
        assert unit(make(*services, spec=CALL), "other").kind == in_a_call
        assert unit(make(*services), "other").kind == in_a_job

    @pytest.mark.parametrize("restart", list(Restart))
    def test_the_worker_is_always_a_deployment(self, restart):
        services = worker().model_copy(update={"restart": restart}), service("other")
        assert unit(make(*services), "worker").kind == "Deployment"

    def test_what_others_wait_to_complete_is_a_job_even_if_restarted_always(self):
        found = make(
            worker(depends_on=[waits("init", Until.COMPLETED)]), service("init", restart=Restart.ALWAYS)
        )
        assert unit(found, "init").kind == "Job"
        assert unit(found, "init").retries == plan.DEFAULT_RETRIES

    @pytest.mark.parametrize(
        ("fields", "retries"),
        [
            ({"restart": Restart.NO}, 0),
            ({"restart": Restart.UNSET}, 0),
            ({"restart": Restart.ON_FAILURE, "max_retries": 3}, 3),
            ({"restart": Restart.ON_FAILURE, "max_retries": 0}, 0),
            ({"restart": Restart.ON_FAILURE}, plan.DEFAULT_RETRIES),
        ],
    )
    def test_retries_are_those_of_the_file(self, fields, retries):
        assert unit(make(service("one", **fields)), "one").retries == retries


class TestJoined:
    def test_services_that_join_share_a_pod_with_the_root_first(self):
        found = make(service("tunnel", joins="web"), service("web"), service("probe", joins="tunnel"))
        assert [[member.name for member in unit.members] for unit in found.units] == [
            ["web", "tunnel", "probe"]
        ]

    def test_a_pod_with_a_server_in_it_is_a_deployment(self):
        found = make(service("web", restart=Restart.ALWAYS), service("once", restart=Restart.NO, joins="web"))
        assert [unit.kind for unit in found.units] == ["Deployment"]

    def test_waiting_for_a_joined_service_is_waiting_for_its_pod(self):
        found = make(
            service("web"), service("tunnel", joins="web"), service("app", depends_on=[waits("tunnel")])
        )
        assert unit(found, "app").waits == (Wait(until="healthy", component="web"),)

    def test_waiting_inside_a_pod_is_no_deadlock(self):
        found = make(service("web"), service("tunnel", joins="web", depends_on=[waits("web")]))
        assert unit(found, "web").waits == ()

    @pytest.mark.parametrize(
        ("services", "message"),
        [
            (
                (service("a", joins="b"), service("b", joins="a")),
                "network_mode goes in a circle: a -> b -> a",
            ),
            ((service("a", joins="gone"),), "services.a.network_mode names the service 'gone'"),
        ],
    )
    def test_impossible_joins_are_refused(self, services, message):
        with pytest.raises(Invalid, match=message) as caught:
            make(*services)
        assert caught.value.reason == "ComposeRefused"


class TestWaits:
    def test_started_needs_nothing(self):
        found = make(service("a", depends_on=[waits("b", Until.STARTED)]), service("b"))
        assert unit(found, "a").waits == ()

    def test_conditions_become_waits(self):
        found = make(
            service("a", depends_on=[waits("b"), waits("c", Until.COMPLETED)]), service("b"), service("c")
        )
        assert unit(found, "a").waits == (
            Wait(until="healthy", component="b"),
            Wait(until="completed", component="c"),
        )

    def test_an_optional_dependency_may_be_missing(self):
        found = make(service("a", depends_on=[waits("gone", required=False)]))
        assert unit(found, "a").waits == ()

    def test_a_required_one_may_not(self):
        with pytest.raises(Invalid, match=r"services.a.depends_on names 'gone'"):
            make(service("a", depends_on=[waits("gone")]))

    def test_nothing_waits_for_a_service_without_replicas(self):
        found = make(service("a", depends_on=[waits("b")]), service("b", replicas=0))
        assert unit(found, "a").waits == ()
        assert [finding.reason for finding in found.findings] == ["DependencyWithoutReplicas"]

    def test_circles_are_refused_with_all_in_them(self):
        with pytest.raises(Invalid, match=r"depends_on goes in a circle through a, b, c$"):
            make(
                service("a", depends_on=[waits("b")]),
                service("b", depends_on=[waits("c")]),
                service("c", depends_on=[waits("a")]),
                service("d", depends_on=[waits("a")]),
            )

    def test_a_circle_through_a_shared_pod_is_one(self):
        with pytest.raises(Invalid, match=r"circle through a, b$"):
            make(
                service("a"),
                service("b", depends_on=[waits("a")]),
                service("c", joins="a", depends_on=[waits("b")]),
            )

    def test_waiting_for_the_end_of_a_server_is_a_finding(self):
        found = make(worker(), service("after", depends_on=[waits("worker", Until.COMPLETED)]))
        assert [finding.reason for finding in found.findings] == ["NeverCompletes"]


class TestMain:
    def test_of_a_call_is_the_worker(self):
        assert make(service("web"), worker(), spec=CALL).main.name == "worker"

    def test_is_what_the_task_says(self):
        assert make(service("web"), worker(), spec={"mainService": "web"}).main.name == "web"

    def test_is_the_one_that_no_other_needs(self):
        found = make(service("db"), service("app", depends_on=[waits("db", Until.STARTED)]))
        assert found.main.name == "app"

    def test_of_several_is_the_worker_then_one_that_publishes_then_the_first(self):
        published = service("web", ports=[Port(container=80, published=8080)])
        exposed = service("api", ports=[Port(container=81, exposed_only=True)])
        assert make(service("a"), published, worker()).main.name == "worker"
        assert make(service("a"), exposed, published).main.name == "web"
        assert make(service("a"), service("b")).main.name == "a"

    def test_is_no_sidecar(self):
        assert make(service("tunnel", joins="web"), service("web")).main.name == "web"

    def test_unknown(self):
        with pytest.raises(Invalid, match="the file has no service 'gone', only a, b") as caught:
            make(service("a"), service("b"), spec={"mainService": "gone"})
        assert caught.value.reason == "SpecRefused:mainService"


class TestCall:
    def test_needs_a_worker(self):
        with pytest.raises(Invalid, match="no service of the file publishes port 5555") as caught:
            make(service("web"), spec=CALL)
        assert caught.value.reason == "SpecRefused:functionName"

    def test_is_not_needed_to_keep_services_up(self):
        assert unit(make(service("web"), call=True), "web").kind == "Deployment"


def test_all_problems_come_at_once():
    with pytest.raises(Invalid) as caught:
        make(service("web"), spec={**CALL, "mainService": "gone"})
    assert caught.value.reason == "SpecRefused:functionName,mainService"
