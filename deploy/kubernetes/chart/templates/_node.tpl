{{/* Of pods on every node. list: root, whether nodes that leave are In or NotIn. */}}
{{- define "deltaplane.onEveryNode" -}}
{{- $root := index . 0 -}}
hostNetwork: true
dnsPolicy: Default
automountServiceAccountToken: false
serviceAccountName: deltaplane-agent
priorityClassName: system-node-critical
{{- with $root.Values.images.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
tolerations:
  - operator: Exists
affinity:
  nodeAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      nodeSelectorTerms:
        - matchExpressions:
            - {key: kubernetes.io/os, operator: In, values: [linux]}
            - {key: deltaplane.dev/leave, operator: {{ index . 1 }}, values: ["true"]}
securityContext:
  seccompProfile: {type: RuntimeDefault}
  # The profiles of container runtimes deny every mount, and the node's own settings are mounted read-only.
  appArmorProfile: {type: Unconfined}
{{- end }}

{{/* A container that works on the node's network. */}}
{{- define "deltaplane.onNode" -}}
image: {{ include "deltaplane.image" (list . "agent") }}
imagePullPolicy: {{ .Values.images.pullPolicy }}
envFrom:
  - configMapRef: {name: {{ include "deltaplane.settingsName" . }}}
env:
  - name: DELTAPLANE_NODE_NAME
    valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
  # With them the uplink is found.
  - name: HOST_IPS
    valueFrom: {fieldRef: {fieldPath: status.hostIPs}}
  - name: DELTAPLANE_CGROUP
    value: /host/cgroup
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
    # Programs and maps; links, routes and filters; and what has no capability of its own: to enter pods' namespaces
    # and to make /proc/sys writable.
    add: [BPF, PERFMON, NET_ADMIN, SYS_ADMIN]
volumeMounts:
  - {name: run, mountPath: /run/deltaplane}
  - {name: state, mountPath: /var/lib/deltaplane}
  - {name: bpffs, mountPath: /sys/fs/bpf, mountPropagation: HostToContainer}
  - {name: cgroup, mountPath: /host/cgroup}
  - {name: netns, mountPath: /run/netns, mountPropagation: HostToContainer}
{{- if .Values.security.tls.enabled }}
  - {name: tls, mountPath: /tls, readOnly: true}
{{- end }}
{{- end }}

{{/* A container that gets the node's certificate. */}}
{{- define "deltaplane.certifying" -}}
image: {{ include "deltaplane.image" (list . "agent") }}
imagePullPolicy: {{ .Values.images.pullPolicy }}
envFrom:
  - configMapRef: {name: {{ include "deltaplane.settingsName" . }}}
env:
  - name: DELTAPLANE_NODE_NAME
    valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
securityContext:
{{ include "deltaplane.containerSecurity" . | indent 2 }}
volumeMounts:
  - {name: tls, mountPath: /tls}
  - {name: ca, mountPath: /ca, readOnly: true}
  - {name: token, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
{{- end }}

{{/* Of the above. The token says which node the pod is on: that is what the bridge goes by. */}}
{{- define "deltaplane.certifyingVolumes" -}}
- name: ca
  configMap: {name: {{ .Values.security.tls.caConfigMap }}}
- name: token
  projected:
    defaultMode: 0400
    sources:
      - serviceAccountToken: {path: token, expirationSeconds: 3600}
      - configMap:
          name: kube-root-ca.crt
          items: [{key: ca.crt, path: ca.crt}]
      - downwardAPI:
          items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]
{{- end }}

{{- define "deltaplane.nodeVolumes" -}}
- name: run
  hostPath: {path: /run/deltaplane, type: DirectoryOrCreate}
- name: state
  hostPath: {path: /var/lib/deltaplane, type: DirectoryOrCreate}
- name: bpffs
  hostPath: {path: /sys/fs/bpf, type: Directory}
- name: cgroup
  hostPath: {path: {{ .Values.agent.cgroup }}, type: Directory}
- name: netns
  hostPath: {path: /run/netns, type: DirectoryOrCreate}
- name: cni-bin
  hostPath: {path: {{ .Values.agent.cniBinDir }}, type: DirectoryOrCreate}
- name: cni-conf
  hostPath: {path: {{ .Values.agent.cniConfDir }}, type: DirectoryOrCreate}
{{- if .Values.security.tls.enabled }}
- name: tls
  hostPath: {path: {{ .Values.security.tls.agentDir }}, type: {{ ternary "DirectoryOrCreate" "Directory" (include "deltaplane.signs" . | not | not) }}}
{{- end }}
{{- end }}
