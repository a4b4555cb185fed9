{{/* REGISTRY/deltaplane-PROCESS:TAG. list: root, process. */}}
{{- define "deltaplane.image" -}}
{{- $root := index . 0 -}}
{{ $root.Values.images.registry }}deltaplane-{{ index . 1 }}:{{ $root.Values.images.tag | default $root.Chart.AppVersion }}
{{- end }}

{{- define "deltaplane.labels" -}}
app.kubernetes.io/name: deltaplane
app.kubernetes.io/component: {{ . }}
{{- end }}

{{/* host:port of every host of the control plane, with commas. list: root, port. */}}
{{- define "deltaplane.targets" -}}
{{- $port := index . 1 -}}
{{- $all := list -}}
{{- range (index . 0).Values.controlPlane.hosts -}}
{{- $all = append $all (printf "%s:%v" (include "deltaplane.host" .address) $port) -}}
{{- end -}}
{{ join "," $all }}
{{- end }}

{{/* An address as it stands before a colon. */}}
{{- define "deltaplane.host" -}}
{{- if contains ":" . }}[{{ . }}]{{ else }}{{ . }}{{ end -}}
{{- end }}

{{- define "deltaplane.etcd" -}}
{{- if .Values.etcd.external }}{{ join "," .Values.etcd.external }}{{ else }}{{ include "deltaplane.targets" (list . .Values.etcd.clientPort) }}{{ end -}}
{{- end }}

{{/* Whether nodes get their certificates from the bridge; empty: they do not. */}}
{{- define "deltaplane.signs" -}}
{{- if and .Values.security.tls.enabled (eq .Values.security.tls.nodeCertificates "signed") }}yes{{ end -}}
{{- end }}

{{/* API servers as nodes reach them, host:port, with commas. */}}
{{- define "deltaplane.apiServers" -}}
{{- if .Values.apiServer.host -}}
{{ include "deltaplane.host" .Values.apiServer.host }}:{{ .Values.apiServer.port }}
{{- else -}}
{{ include "deltaplane.targets" (list . .Values.apiServer.port) }}
{{- end -}}
{{- end }}

{{/* Settings of all processes, as environment. */}}
{{- define "deltaplane.settings" -}}
DELTAPLANE_ETCD: {{ include "deltaplane.etcd" . | quote }}
DELTAPLANE_IPAM: {{ include "deltaplane.targets" (list . .Values.ipam.port) | quote }}
DELTAPLANE_REGISTRY: {{ include "deltaplane.targets" (list . .Values.endpoints.port) | quote }}
DELTAPLANE_SLICER: {{ include "deltaplane.targets" (list . .Values.slicer.port) | quote }}
DELTAPLANE_LOG_LEVEL: {{ .Values.logLevel | quote }}
DELTAPLANE_POOL: {{ join "," .Values.pools | quote }}
DELTAPLANE_SERVICE_RANGE: {{ join "," .Values.serviceRanges | quote }}
DELTAPLANE_STALE_AFTER: {{ .Values.slicer.staleAfter | quote }}
DELTAPLANE_ROUTING: {{ .Values.agent.routing | quote }}
DELTAPLANE_MTU: {{ .Values.agent.mtu | quote }}
DELTAPLANE_MASQUERADE: {{ .Values.agent.masquerade | quote }}
{{- if .Values.security.tls.enabled }}
DELTAPLANE_TLS_DIR: /tls
DELTAPLANE_INSECURE: ""
{{- else }}
DELTAPLANE_TLS_DIR: ""
DELTAPLANE_INSECURE: "1"
{{- end }}
{{- if include "deltaplane.signs" . }}
DELTAPLANE_NODE_CA: /node-ca
DELTAPLANE_NODE_CERTIFICATE_DAYS: {{ .Values.security.tls.nodeCertificateDays | quote }}
DELTAPLANE_API_SERVER: {{ include "deltaplane.apiServers" . | quote }}
{{- else }}
DELTAPLANE_NODE_CA: ""
DELTAPLANE_NODE_CERTIFICATE_DAYS: ""
DELTAPLANE_API_SERVER: ""
{{- end }}
{{- end }}

{{/* Settings of etcd. */}}
{{- define "deltaplane.etcdSettings" -}}
{{- $root := . -}}
{{- $members := list -}}
{{- range .Values.controlPlane.hosts -}}
{{- $members = append $members (printf "%s=%s://%s:%v" .name (ternary "https" "http" $root.Values.security.tls.enabled) (include "deltaplane.host" .address) $root.Values.etcd.peerPort) -}}
{{- end -}}
SCHEME: {{ ternary "https" "http" .Values.security.tls.enabled }}
ETCD_INITIAL_CLUSTER: {{ join "," $members | quote }}
ETCD_INITIAL_CLUSTER_TOKEN: deltaplane
ETCD_AUTO_COMPACTION_MODE: periodic
ETCD_AUTO_COMPACTION_RETENTION: 10m
ETCD_QUOTA_BACKEND_BYTES: {{ .Values.etcd.quotaBytes | int64 | quote }}
ETCD_EXPERIMENTAL_INITIAL_CORRUPT_CHECK: "true"
ETCD_EXPERIMENTAL_WATCH_PROGRESS_NOTIFY_INTERVAL: 500ms
ETCD_LOG_LEVEL: warn
# JSON over HTTP, which nobody of ours speaks.
ETCD_ENABLE_GRPC_GATEWAY: "false"
{{- if .Values.security.tls.enabled }}
ETCD_CERT_FILE: /tls/tls.crt
ETCD_KEY_FILE: /tls/tls.key
ETCD_TRUSTED_CA_FILE: /tls/ca.crt
ETCD_CLIENT_CERT_AUTH: "true"
# Else an agent's certificate would do.
ETCD_CLIENT_CERT_ALLOWED_HOSTNAME: store-client.deltaplane
ETCD_PEER_CERT_FILE: /tls/tls.crt
ETCD_PEER_KEY_FILE: /tls/tls.key
ETCD_PEER_TRUSTED_CA_FILE: /tls/ca.crt
ETCD_PEER_CLIENT_CERT_AUTH: "true"
ETCD_PEER_CERT_ALLOWED_HOSTNAME: etcd.deltaplane
ETCD_TLS_MIN_VERSION: TLS1.3
{{- end }}
{{- end }}

{{- define "deltaplane.settingsName" -}}
deltaplane-{{ include "deltaplane.settings" . | sha256sum | trunc 10 }}
{{- end }}

{{- define "deltaplane.etcdSettingsName" -}}
deltaplane-etcd-{{ include "deltaplane.etcdSettings" . | sha256sum | trunc 10 }}
{{- end }}

{{/* What every pod of the control plane has. list: root, component. */}}
{{- define "deltaplane.placement" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
hostNetwork: true
# The cluster's DNS needs pods, which need us.
dnsPolicy: Default
automountServiceAccountToken: {{ eq $component "bridge" }}
serviceAccountName: deltaplane-{{ $component }}
priorityClassName: system-cluster-critical
{{- with $root.Values.images.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
nodeSelector:
{{ toYaml $root.Values.controlPlane.nodeSelector | indent 2 }}
tolerations:
{{ toYaml $root.Values.controlPlane.tolerations | indent 2 }}
affinity:
  podAntiAffinity:
    # Two on one host would want the same ports.
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
{{ include "deltaplane.labels" $component | indent 12 }}
{{- end }}

{{- define "deltaplane.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "deltaplane.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Probes of an admin port: the node itself asks. list: port. */}}
{{- define "deltaplane.probes" -}}
startupProbe:
  httpGet: {host: 127.0.0.1, path: /healthz, port: {{ . }}}
  periodSeconds: 1
  failureThreshold: 60
readinessProbe:
  httpGet: {host: 127.0.0.1, path: /readyz, port: {{ . }}}
  periodSeconds: 5
  timeoutSeconds: 3
livenessProbe:
  httpGet: {host: 127.0.0.1, path: /healthz, port: {{ . }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
{{- end }}

{{/* A service: its account, Deployment and disruption budget. list: root, process, values, arguments. */}}
{{- define "deltaplane.service" -}}
{{- $root := index . 0 -}}
{{- $process := index . 1 -}}
{{- $values := index . 2 -}}
{{- $arguments := index . 3 -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: deltaplane-{{ $process }}
  namespace: {{ $root.Release.Namespace }}
  labels:
{{ include "deltaplane.labels" $process | indent 4 }}
automountServiceAccountToken: false
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: deltaplane-{{ $process }}
  namespace: {{ $root.Release.Namespace }}
  labels:
{{ include "deltaplane.labels" $process | indent 4 }}
spec:
  maxUnavailable: 1
  selector:
    matchLabels:
{{ include "deltaplane.labels" $process | indent 6 }}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: deltaplane-{{ $process }}
  namespace: {{ $root.Release.Namespace }}
  labels:
{{ include "deltaplane.labels" $process | indent 4 }}
spec:
  replicas: {{ $values.replicas }}
  strategy:
    type: RollingUpdate
    # A new one can have its port only when the old one is gone.
    rollingUpdate: {maxSurge: 0, maxUnavailable: 1}
  selector:
    matchLabels:
{{ include "deltaplane.labels" $process | indent 6 }}
  template:
    metadata:
      labels:
{{ include "deltaplane.labels" $process | indent 8 }}
    spec:
{{ include "deltaplane.placement" (list $root $process) | indent 6 }}
      securityContext:
{{ include "deltaplane.podSecurity" . | indent 8 }}
      # Draining takes 5 s, ending running calls 5 s more.
      terminationGracePeriodSeconds: 15
      containers:
        - name: {{ $process }}
          image: {{ include "deltaplane.image" (list $root $process) }}
          imagePullPolicy: {{ $root.Values.images.pullPolicy }}
          args:
            - --admin={{ $root.Values.admin.host }}:{{ $values.adminPort }}
{{- range $arguments }}
            - {{ . }}
{{- end }}
          envFrom:
            - configMapRef: {name: {{ include "deltaplane.settingsName" $root }}}
          env:
            - name: HOST_IP
              valueFrom: {fieldRef: {fieldPath: status.hostIP}}
            - name: POD_NAME
              valueFrom: {fieldRef: {fieldPath: metadata.name}}
            - name: POD_NAMESPACE
              valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
{{- if eq $process "bridge" }}
            # Not the address of the service `kubernetes`: agents make it work, and they need the bridge.
            - name: KUBERNETES_SERVICE_HOST
              value: {{ $root.Values.apiServer.host | default "$(HOST_IP)" | quote }}
            - name: KUBERNETES_SERVICE_PORT
              value: {{ $root.Values.apiServer.port | quote }}
{{- end }}
          ports:
{{- if $values.port }}
            - {name: grpc, containerPort: {{ $values.port }}}
{{- end }}
            - {name: admin, containerPort: {{ $values.adminPort }}}
{{ include "deltaplane.probes" $values.adminPort | indent 10 }}
{{- with $values.resources }}
          resources:
{{ toYaml . | indent 12 }}
{{- end }}
          securityContext:
{{ include "deltaplane.containerSecurity" . | indent 12 }}
{{- if $root.Values.security.tls.enabled }}
          volumeMounts:
            - {name: tls, mountPath: /tls, readOnly: true}
{{- if and (eq $process "bridge") (include "deltaplane.signs" $root) }}
            - {name: node-ca, mountPath: /node-ca, readOnly: true}
{{- end }}
      volumes:
        - name: tls
          secret: {secretName: deltaplane-{{ $process }}-tls, defaultMode: 0440}
{{- if and (eq $process "bridge") (include "deltaplane.signs" $root) }}
        # It makes nodes' certificates and no others: what lies with it is not the CA of the services.
        - name: node-ca
          secret: {secretName: {{ $root.Values.security.tls.nodeCaSecret }}, defaultMode: 0440}
{{- end }}
{{- end }}
{{- end }}
