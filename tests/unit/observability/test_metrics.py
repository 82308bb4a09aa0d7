from prometheus_client import generate_latest

from opengpu_operator.observability.metrics import Metrics, version


def test_what_happened_can_be_scraped():
    metrics = Metrics()
    metrics.request("create", 201, "Pod", 0.004)
    metrics.request("create", 429, "Pod", 0.1)
    metrics.reconcile("opengputasks", "success", 0.2, 0.01)
    metrics.synced()
    depth = {"queue_depth": 3.0}
    metrics.watch(lambda: depth, {"queue_depth": "Keys that wait"})
    read = metrics.registry.get_sample_value
    assert (
        read("opengpu_operator_kube_api_requests_total", {"verb": "create", "code": "429", "kind": "Pod"})
        == 1
    )
    assert read("opengpu_operator_kube_api_request_seconds_count", {"verb": "create"}) == 2
    assert read("opengpu_operator_reconcile_total", {"kind": "opengputasks", "result": "success"}) == 1
    assert read("opengpu_operator_queue_wait_seconds_sum", {"kind": "opengputasks"}) == 0.2
    assert read("opengpu_operator_synced") == 1
    assert read("opengpu_operator_queue_depth") == 3
    depth["queue_depth"] = 4.0
    text = generate_latest(metrics.registry).decode()
    assert "\nopengpu_operator_queue_depth 4.0\n" in text
    assert f'version="{version()}"' in text


def test_two_processes_parts_do_not_share_metrics():
    first, second = Metrics(), Metrics()
    first.synced()
    assert second.registry.get_sample_value("opengpu_operator_synced") == 0


def test_every_name_has_our_prefix():
    for metric in Metrics().registry.collect():
        assert metric.name.startswith(("opengpu_operator_", "process_"))
