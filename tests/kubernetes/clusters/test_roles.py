"""The roles of deploy/ let the bridge do what it does and nothing else: what the server says."""

import httpx2

from services.kubernetes.api.kubeconfig import Connection
from services.kubernetes.api.permissions import PERMISSIONS
from tests.kubernetes import account
from tests.kubernetes.bare import SECONDS, Api, Object

REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
Rule = tuple[str, str, str]
"""Group, resource and verb."""


async def rules(connection: Connection, token: str, namespace: str) -> set[Rule]:
    """What a token's account may do in a namespace, as `kubectl auth can-i --list` asks."""
    http = httpx2.AsyncClient(
        base_url=connection.server,
        verify=account.anonymous(connection).tls(),
        headers={"Authorization": f"Bearer {token}"},
        timeout=SECONDS,
        trust_env=False,
    )
    body: Object = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    async with http:
        answer = await http.post(REVIEWS, json=body)
        assert answer.is_success, answer.text
        status = answer.json()["status"]
    assert not status.get("incomplete"), "the server cannot say all of it"
    return {
        (group, resource, verb)
        for rule in status["resourceRules"]
        for group in rule.get("apiGroups", ())
        for resource in rule.get("resources", ())
        for verb in rule["verbs"]
    }


async def test_it_may_do_what_it_does_and_nothing_else(api: Api, connection: Connection) -> None:
    try:
        token = await account.install(api)
        # What every account may do: ask what it may do, and what the server has.
        nobody = await account.token_of(api, "nobody")
        for namespace, is_own in ((api.namespace, True), ("default", False)):
            granted = await rules(connection, token, namespace)
            granted -= await rules(connection, nobody, namespace)
            assert granted == {
                (item.resource.group, item.rbac_resource, verb.value)
                for item in PERMISSIONS
                if is_own or not item.own_namespace
                for verb in item.verbs
            }
    finally:
        await account.remove(api)
