{{- /* The rooms, in the order in which a row walks them. */ -}}
{{- define "batchmill.rooms" -}}
splitter dispatcher poller merger
{{- end }}

{{- define "batchmill.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "batchmill.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains (include "batchmill.name" .) .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "batchmill.name" .) | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- /* The labels that never change, which selectors use. Takes {root, room}. */ -}}
{{- define "batchmill.selector" -}}
app.kubernetes.io/name: {{ include "batchmill.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .room }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{- /* All labels. Takes {root, room}. */ -}}
{{- define "batchmill.labels" -}}
{{ include "batchmill.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: batchmill
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "batchmill.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "batchmill.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "batchmill.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{- /* The settings' prefixes of topics and groups, with batchmill's own defaults. */ -}}
{{- define "batchmill.prefix" -}}
{{- dig "kafka" "prefix" "batchmill" .Values.settings }}
{{- end }}
{{- define "batchmill.groupPrefix" -}}
{{- dig "kafka" "group_prefix" "batchmill-" .Values.settings }}
{{- end }}

{{- /* The settings file. Helm's own toToml would write each number as a float; JSON's texts, numbers and lists are TOML's too.
     Takes {table, path}: a table's own values come before the tables in it. */ -}}
{{- define "batchmill.toml" -}}
{{- $path := .path }}
{{- range $key, $value := .table }}
{{- if not (or (kindIs "map" $value) (kindIs "invalid" $value)) }}
{{ template "batchmill.key" $key }} = {{ toJson $value }}
{{- end }}
{{- end }}
{{- range $key, $value := .table }}
{{- if kindIs "map" $value }}
{{- $inner := append $path (include "batchmill.key" $key) }}

[{{ join "." $inner }}]
{{- include "batchmill.toml" (dict "table" $value "path" $inner) }}
{{- end }}
{{- end }}
{{- end }}
{{- define "batchmill.key" -}}
{{- if regexMatch "^[A-Za-z0-9_-]+$" . }}{{ . }}{{ else }}{{ toJson . }}{{ end }}
{{- end }}
{{- define "batchmill.settings" -}}
{{- include "batchmill.toml" (dict "table" .Values.settings "path" list) | trim }}
{{- end }}

{{- define "batchmill.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "batchmill.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- /* Environment of every container: where the settings are, and a file for each secret. */ -}}
{{- define "batchmill.env" -}}
- name: BATCHMILL_CONFIG
  value: /etc/batchmill/batchmill.toml
{{- range .Values.secrets }}
- name: {{ .env }}_FILE
  value: /run/secrets/batchmill/{{ .env }}
{{- end }}
{{- with .Values.env }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "batchmill.mounts" -}}
- name: settings
  mountPath: /etc/batchmill
  readOnly: true
- name: scratch
  mountPath: {{ dig "scratch" "dir" "/scratch" .Values.settings }}
{{- if .Values.secrets }}
- name: secrets
  mountPath: /run/secrets/batchmill
  readOnly: true
{{- end }}
{{- end }}

{{- /* Takes {root, config}: the config map's name. */ -}}
{{- define "batchmill.volumes" -}}
- name: settings
  configMap:
    name: {{ .config }}
- name: scratch
  emptyDir:
    sizeLimit: {{ .root.Values.scratch.sizeLimit }}
{{- with .root.Values.secrets }}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      {{- range . }}
      - secret:
          name: {{ .secretName }}
          items:
            - key: {{ .key }}
              path: {{ .env }}
      {{- end }}
{{- end }}
{{- end }}
