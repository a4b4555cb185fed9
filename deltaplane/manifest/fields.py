"""apiVersions and names of the fields of the kinds that we read, as their API references say.

A field that is named here and read nowhere does not concern the network.
"""

from collections.abc import Mapping

from deltaplane.model.tiers import PolicyKind

API_VERSIONS: Mapping[PolicyKind, str] = {
    PolicyKind.NETWORK_POLICY: "networking.k8s.io/v1",
    PolicyKind.CILIUM: "cilium.io/v2",
    PolicyKind.CILIUM_CLUSTERWIDE: "cilium.io/v2",
    PolicyKind.CLUSTER: "policy.networking.k8s.io/v1alpha2",
    PolicyKind.ADMIN: "policy.networking.k8s.io/v1alpha1",
    PolicyKind.BASELINE_ADMIN: "policy.networking.k8s.io/v1alpha1",
}
"""Of the kinds of policies."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


METADATA = _words(
    "annotations creationTimestamp deletionGracePeriodSeconds deletionTimestamp finalizers "
    "generateName generation labels managedFields name namespace ownerReferences resourceVersion "
    "selfLink uid"
)
POD_SPEC = _words(
    "activeDeadlineSeconds affinity automountServiceAccountToken containers dnsConfig dnsPolicy "
    "enableServiceLinks ephemeralContainers hostAliases hostIPC hostNetwork hostPID hostUsers "
    "hostname hostnameOverride imagePullSecrets initContainers nodeName nodeSelector os overhead "
    "preemptionPolicy priority priorityClassName readinessGates resourceClaims resources "
    "restartPolicy runtimeClassName schedulerName schedulingGates securityContext serviceAccount "
    "serviceAccountName setHostnameAsFQDN shareProcessNamespace subdomain "
    "terminationGracePeriodSeconds tolerations topologySpreadConstraints volumes"
)
CONTAINER = _words(
    "args command env envFrom image imagePullPolicy lifecycle livenessProbe name ports "
    "readinessProbe resizePolicy resources restartPolicy restartPolicyRules securityContext "
    "startupProbe stdin stdinOnce terminationMessagePath terminationMessagePolicy tty "
    "volumeDevices volumeMounts workingDir"
)
CONTAINER_PORT = _words("containerPort hostIP hostPort name protocol")
DEPLOYMENT_SPEC = _words(
    "minReadySeconds paused progressDeadlineSeconds replicas revisionHistoryLimit selector "
    "strategy template"
)
STATEFUL_SET_SPEC = _words(
    "minReadySeconds ordinals persistentVolumeClaimRetentionPolicy podManagementPolicy replicas "
    "revisionHistoryLimit selector serviceName template updateStrategy volumeClaimTemplates"
)
SERVICE_SPEC = _words(
    "allocateLoadBalancerNodePorts clusterIP clusterIPs externalIPs externalName "
    "externalTrafficPolicy healthCheckNodePort internalTrafficPolicy ipFamilies ipFamilyPolicy "
    "loadBalancerClass loadBalancerIP loadBalancerSourceRanges ports publishNotReadyAddresses "
    "selector sessionAffinity sessionAffinityConfig trafficDistribution type"
)
SERVICE_PORT = _words("appProtocol name nodePort port protocol targetPort")
SERVICE_STATUS = _words("conditions loadBalancer")
INGRESS = _words("hostname ip ipMode ports")
"""Of a load balancer."""
SLICE_ENDPOINT = _words(
    "addresses conditions deprecatedTopology hints hostname nodeName targetRef zone"
)
SLICE_PORT = _words("appProtocol name port protocol")
OBJECT_REFERENCE = _words("apiVersion fieldPath kind name namespace resourceVersion uid")
