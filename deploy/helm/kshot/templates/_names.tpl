{{- define "kshot.name" -}}
{{- if contains "kshot" .Release.Name }}{{ .Release.Name | trunc 52 | trimSuffix "-" }}{{ else }}{{ printf "%s-kshot" .Release.Name | trunc 52 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "kshot.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "kshot.selector" -}}
app.kubernetes.io/name: kshot
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "kshot.labels" -}}
{{ include "kshot.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- /* Whether tasks live in a Redis; else in a file, which one pod alone may have. */ -}}
{{- define "kshot.shared" -}}
{{- if or .Values.redis.enabled .Values.redis.url .Values.redis.urlSecret.name }}true{{ end }}
{{- end }}

{{- /* What a container may do: nothing that a service needs root for. */ -}}
{{- define "kshot.confined" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}
