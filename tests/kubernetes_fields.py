"""The fields of Kubernetes objects that deploy/ uses, and how a misspelt one is found without a cluster."""

from __future__ import annotations

from collections.abc import Iterator

# The fields used here, by the one around them, and the API version of each kind: an API server may ignore a misspelt
# one. From the API reference; the file was held against the published schemas of 1.29 and 1.37 as well.
VERSIONS = {
    "ConfigMap": "v1",
    "Deployment": "apps/v1",
    "NetworkPolicy": "networking.k8s.io/v1",
    "PodDisruptionBudget": "policy/v1",
    "Service": "v1",
}
FIELDS = {
    "ConfigMap": "apiVersion kind metadata data",
    "Deployment": "apiVersion kind metadata spec",
    "NetworkPolicy": "apiVersion kind metadata spec",
    "PodDisruptionBudget": "apiVersion kind metadata spec",
    "Service": "apiVersion kind metadata spec",
    "metadata": "name labels",
    "labels": "app.kubernetes.io/name",
    "matchLabels": "app.kubernetes.io/name kubernetes.io/metadata.name",
    "data": "gateway.yaml loopback.cjs",
    "Deployment.spec": "replicas selector strategy template",
    "selector": "matchLabels app.kubernetes.io/name",
    "strategy": "rollingUpdate",
    "rollingUpdate": "maxUnavailable maxSurge",
    "template": "metadata spec",
    "template.spec": "automountServiceAccountToken enableServiceLinks hostAliases terminationGracePeriodSeconds "
    "securityContext topologySpreadConstraints containers volumes",
    "hostAliases": "ip hostnames",
    "template.spec.securityContext": "runAsNonRoot seccompProfile",
    "seccompProfile": "type",
    "topologySpreadConstraints": "maxSkew topologyKey whenUnsatisfiable labelSelector",
    "labelSelector": "matchLabels",
    "containers": "name image args env ports livenessProbe readinessProbe lifecycle resources securityContext "
    "volumeMounts",
    "env": "name value valueFrom",
    "valueFrom": "secretKeyRef",
    "secretKeyRef": "name key",
    "containers.ports": "name containerPort",
    "livenessProbe": "httpGet exec initialDelaySeconds periodSeconds timeoutSeconds",
    "readinessProbe": "httpGet exec initialDelaySeconds periodSeconds timeoutSeconds",
    "httpGet": "path port",
    "exec": "command",
    "lifecycle": "preStop",
    "preStop": "exec",
    "resources": "requests limits",
    "requests": "cpu memory",
    "limits": "cpu memory",
    "containers.securityContext": "runAsUser readOnlyRootFilesystem allowPrivilegeEscalation capabilities",
    "capabilities": "drop",
    "volumeMounts": "name mountPath readOnly",
    "volumes": "name configMap",
    "configMap": "name items",
    "items": "key path",
    "Service.spec": "selector ports sessionAffinity",
    "Service.spec.ports": "name port targetPort",
    "NetworkPolicy.spec": "podSelector policyTypes ingress",
    "podSelector": "matchLabels",
    "namespaceSelector": "matchLabels",
    "ingress": "from ports",
    "from": "podSelector namespaceSelector",
    "ingress.ports": "protocol port",
    "PodDisruptionBudget.spec": "minAvailable selector",
}


def list_misspelt(value: object, place: tuple[str, ...]) -> Iterator[str]:
    """Fields that what is around them does not have. The longest known end of a place says what it has."""
    if isinstance(value, list):
        for one in value:
            yield from list_misspelt(one, place)
    elif isinstance(value, dict):
        ends = (".".join(place[start:]) for start in range(len(place)))
        known = next((FIELDS[end].split() for end in ends if end in FIELDS), [])
        yield from (".".join((*place, field)) for field in value if field not in known)
        for field, inner in value.items():
            yield from list_misspelt(inner, (*place, field))
