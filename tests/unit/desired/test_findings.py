"""The table of what making a job may remark on."""

from opengpu_operator.api.findings import Severity
from opengpu_operator.desired.findings import RULES, JobFinding, remark


def test_every_reason_has_a_rule_in_sentences():
    assert set(RULES) == set(JobFinding)
    for reason, rule in RULES.items():
        # What can't be built is said at once and stops; all else is only remarked on.
        assert (rule.severity is Severity.ERROR) is (reason is JobFinding.COMPOSE_REFUSED)
        assert rule.meaning.endswith(".")
        assert rule.advice.endswith(".")


def test_a_remark_says_what_the_rule_says_unless_told_otherwise():
    assert remark(JobFinding.PORTS_CUT, path="services").message == RULES[JobFinding.PORTS_CUT].meaning
    assert remark(JobFinding.PORTS_CUT, path="services", message="So.").message == "So."
