{{- define "opengpu.name" -}}
{{- .Values.fullnameOverride | default .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* What selects pods: never changed after creation. Call with (list . "component"). */}}
{{- define "opengpu.selector" -}}
{{- $ := index . 0 -}}
app.kubernetes.io/name: {{ $.Chart.Name }}
app.kubernetes.io/instance: {{ $.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Labels of every object. Call with (list . "component"). */}}
{{- define "opengpu.labels" -}}
{{- $ := index . 0 -}}
{{ include "opengpu.selector" . }}
app.kubernetes.io/part-of: opengpu
app.kubernetes.io/version: {{ $.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $.Chart.Name $.Chart.Version | replace "+" "_" }}
{{- with $.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Reference of an image. Call with (list . .Values.image). */}}
{{- define "opengpu.image" -}}
{{- $ := index . 0 -}}
{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "opengpu.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (printf "%s-operator" (include "opengpu.name" .)) }}
{{- else -}}
{{ required "serviceAccount.name is needed where serviceAccount.create is false" .Values.serviceAccount.name }}
{{- end -}}
{{- end -}}

{{- define "opengpu.keySecret" -}}
{{ .Values.store.existingKeySecret | default (printf "%s-store-key" (include "opengpu.name" .)) }}
{{- end -}}

{{/* The bytes that each pod of the store may keep of a bucket; empty where it keeps none. */}}
{{- define "opengpu.cacheBytes" -}}
{{- if eq .Values.store.backend "s3" -}}
{{- $given := (.Values.store.s3.cache | default dict).size | default "0" -}}
{{- $size := kindIs "string" $given | ternary $given (int64 $given | toString) -}}
{{- $units := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- $bytes := mul (regexFind "^[0-9]+" $size) (get $units (regexFind "[A-Za-z]*$" $size)) -}}
{{- if $bytes }}{{ $bytes }}{{ end -}}
{{- end -}}
{{- end -}}

{{/* The host at which files are fetched from outside; empty where they aren't. */}}
{{- define "opengpu.filesHost" -}}
{{- if .Values.store.external.enabled -}}
{{- if .Values.store.external.host -}}
{{ .Values.store.external.host }}
{{- else -}}
files.{{ required "store.external.host or settings.routes.domain is needed where store.external.enabled is true" .Values.settings.routes.domain }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "opengpu.filesUrl" -}}
{{- with include "opengpu.filesHost" . -}}
{{ $.Values.settings.routes.scheme }}://{{ . }}{{ with $.Values.settings.routes.externalPort }}:{{ . }}{{ end }}
{{- end -}}
{{- end -}}

{{/* The settings file: what follows from the chart, and the user's settings. */}}
{{- define "opengpu.settings" -}}
{{- $store := dict
  "url" (printf "http://%s-store.%s.svc.%s:8080" (include "opengpu.name" .) .Release.Namespace .Values.settings.pods.clusterDomain)
  "namespace" .Release.Namespace
  "port" 8080
  "keyFile" "/etc/opengpu/store-key/key"
  "podLabels" (include "opengpu.selector" (list . "store") | fromYaml) -}}
{{- with include "opengpu.filesUrl" . -}}
{{- $_ := set $store "externalUrl" . -}}
{{- $_ := set $store "podsUrl" (printf "http://%s-store-pods.%s.svc.%s:8080" (include "opengpu.name" $) $.Release.Namespace $.Values.settings.pods.clusterDomain) -}}
{{- end -}}
{{- $chart := dict
  "namespace" .Release.Namespace
  "store" $store
  "agent" (dict "image" (include "opengpu.image" (list . .Values.agent.image)))
  "translatorSocket" "/run/opengpu/translator.sock"
  "probePort" 8081
  "metricsPort" 9090 -}}
{{- $settings := mergeOverwrite (deepCopy .Values.settings) $chart -}}
{{- /* Helm takes a null for "drop this", so the settings' null is spelled "" in the values. */ -}}
{{- if eq "" ($settings.network.ingressNamespace | default "") -}}
{{- $_ := set $settings.network "ingressNamespace" nil -}}
{{- end -}}
{{- toYaml $settings -}}
{{- end -}}

{{/* What the "restricted" Pod Security Standard asks of pods and containers, and a little more. */}}
{{- define "opengpu.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "opengpu.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* The token of a pod's account, mounted by hand where one container has a use for it. */}}
{{- define "opengpu.token" -}}
defaultMode: 288 # 0440, for fsGroup
sources:
  - serviceAccountToken: {path: token, expirationSeconds: 3607}
  - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
  - downwardAPI: {items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]}
{{- end -}}

{{/* Where pods go. Call with .Values.operator or .Values.store. */}}
{{- define "opengpu.placement" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}
