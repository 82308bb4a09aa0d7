import pytest

from opengpu_operator.kube import errors


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        (400, "BadRequest", errors.Unprocessable),
        (401, "Unauthorized", errors.Unauthorized),
        (403, "Forbidden", errors.Forbidden),
        (404, "NotFound", errors.NotFound),
        (409, "AlreadyExists", errors.AlreadyExists),
        (409, "Conflict", errors.ConflictError),
        (410, "Expired", errors.Gone),
        (413, "RequestEntityTooLarge", errors.Unprocessable),
        (418, "", errors.KubeError),
        (422, "Invalid", errors.Unprocessable),
        (429, "TooManyRequests", errors.TooManyRequests),
        (500, "InternalError", errors.Unavailable),
        (503, "ServiceUnavailable", errors.Unavailable),
    ],
)
def test_each_answer_has_its_error(code, reason, expected):
    error = errors.error_of(code, {"reason": reason, "message": "why"}, retry_after=7)
    assert type(error) is expected
    assert (error.code, error.reason, error.message) == (code, reason, "why")
    assert getattr(error, "retry_after", 7) == 7


@pytest.mark.parametrize("body", [{}, {"message": None, "details": None}, {"details": "x"}])
def test_an_answer_that_says_nothing(body):
    error = errors.error_of(403, body)
    assert error.message == "HTTP 403"
    assert isinstance(error, errors.Forbidden)
    assert not error.namespace_terminating
    assert not error.quota_exceeded


def test_the_end_of_a_namespace_and_a_used_up_quota():
    def forbidden(message, **details):
        return errors.error_of(403, {"reason": "Forbidden", "message": message, "details": details})

    ending = 'configmaps "a" is forbidden: unable to create new content in namespace b because it is being terminated'
    assert forbidden(ending).namespace_terminating
    assert forbidden("no", causes=[{"reason": "NamespaceTerminating"}]).namespace_terminating
    assert forbidden('pods "a" is forbidden: exceeded quota: q, requested: pods=1').quota_exceeded
    assert forbidden('pods "a" is forbidden: status unknown for quota: q, resources: pods').quota_exceeded
    assert not forbidden('User "x" cannot create').namespace_terminating
