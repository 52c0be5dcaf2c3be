{{/*
Copyright The Pratique Authors.
SPDX-License-Identifier: Apache-2.0
*/}}

{{/* The name in labels. */}}
{{- define "pratique.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* The name of most objects, the webhook configurations among them. 40: suffixes follow, and a Service's name ends at 63. */}}
{{- define "pratique.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "pratique.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "pratique.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* The ServiceAccount of the replicas. */}}
{{- define "pratique.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "pratique.fullname" .) -}}
{{- else -}}
{{- required "serviceAccount.name: which ServiceAccount, if the chart makes none?" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* The labels by which Pods are found; they never change. */}}
{{- define "pratique.selectorLabels" -}}
app.kubernetes.io/name: {{ include "pratique.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* The labels of every object. */}}
{{- define "pratique.labels" -}}
{{ include "pratique.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The labels of Pods that are not replicas: the Service must not find them. */}}
{{- define "pratique.helperLabels" -}}
app.kubernetes.io/name: {{ include "pratique.name" . }}-helper
app.kubernetes.io/instance: {{ .Release.Name }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The image, by digest if there is one. */}}
{{- define "pratique.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* The Secret of certificates that Pratique makes itself; empty if it does not. */}}
{{- define "pratique.ownCertificates" -}}
{{- if not (or .Values.certificates.existingSecret .Values.certificates.certManager.enabled) -}}
{{- include "pratique.fullname" . }}-certificates
{{- end -}}
{{- end -}}

{{/* The Secret that is mounted as --cert-dir; empty if none is. */}}
{{- define "pratique.mountedCertificates" -}}
{{- if .Values.certificates.existingSecret -}}
{{- .Values.certificates.existingSecret -}}
{{- else if .Values.certificates.certManager.enabled -}}
{{- include "pratique.fullname" . }}-tls
{{- end -}}
{{- end -}}

{{/*
The ConfigMap of a file that is given inline or in a ConfigMap of the admin's; empty if it is not given.
Takes (list $ "name of the value" "suffix").
*/}}
{{- define "pratique.fileConfigMap" -}}
{{- $root := index . 0 -}}
{{- $file := index $root.Values (index . 1) -}}
{{- if and $file.inline $file.existingConfigMap -}}
{{- fail (printf "%s: inline or existingConfigMap, not both" (index . 1)) -}}
{{- end -}}
{{- if $file.existingConfigMap -}}
{{- $file.existingConfigMap -}}
{{- else if $file.inline -}}
{{- include "pratique.fullname" $root }}-{{ index . 2 }}
{{- end -}}
{{- end -}}

{{/* The ConfigMap with policy.json; empty if there is none. */}}
{{- define "pratique.containersPolicy" -}}
{{- if .Values.containersPolicy.existingConfigMap -}}
{{- .Values.containersPolicy.existingConfigMap -}}
{{- else if .Values.containersPolicy.policy -}}
{{- include "pratique.fullname" . }}-containers-policy
{{- end -}}
{{- end -}}

{{/* The ConfigMap with registries.d; empty if there is none. */}}
{{- define "pratique.registriesD" -}}
{{- if .Values.containersPolicy.existingRegistriesD -}}
{{- .Values.containersPolicy.existingRegistriesD -}}
{{- else if .Values.containersPolicy.registriesD -}}
{{- include "pratique.fullname" . }}-registries-d
{{- end -}}
{{- end -}}

{{/* What Pod Security's `restricted` asks of a Pod, and of a container. */}}
{{- define "pratique.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
# So that the keys in mounted Secrets can be read by nobody else.
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}
{{- define "pratique.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* A proxy. The API server's address stands first in what is asked directly; the kubelet fills it in. */}}
{{- define "pratique.proxyEnv" -}}
{{- if or .Values.proxy.http .Values.proxy.https -}}
{{- with .Values.proxy.http }}
- name: HTTP_PROXY
  value: {{ . | quote }}
{{- end }}
{{- with .Values.proxy.https }}
- name: HTTPS_PROXY
  value: {{ . | quote }}
{{- end }}
- name: NO_PROXY
  value: {{ concat (list "$(KUBERNETES_SERVICE_HOST)" "kubernetes.default.svc") .Values.proxy.none | join "," | quote }}
{{- end -}}
{{- end -}}

{{/* What contradicts itself. It is refused here, and not by replicas that never get ready. */}}
{{- define "pratique.check" -}}
{{- if not (regexMatch "^[a-z]" (include "pratique.fullname" .)) -}}
{{- fail (printf "fullnameOverride: the name of a Service begins with a letter, and %s does not" (include "pratique.fullname" .)) -}}
{{- end -}}
{{- if and .Values.certificates.existingSecret .Values.certificates.certManager.enabled -}}
{{- fail "certificates: existingSecret or certManager.enabled, not both" -}}
{{- end -}}
{{- if and .Values.inject.namespaces .Values.inject.everywhere -}}
{{- fail "inject: namespaces or everywhere, not both" -}}
{{- end -}}
{{- if and .Values.containersPolicy.policy .Values.containersPolicy.existingConfigMap -}}
{{- fail "containersPolicy: policy or existingConfigMap, not both" -}}
{{- end -}}
{{- if and .Values.containersPolicy.registriesD .Values.containersPolicy.existingRegistriesD -}}
{{- fail "containersPolicy: registriesD or existingRegistriesD, not both" -}}
{{- end -}}
{{- if and .Values.clientCA.names (not (include "pratique.fileConfigMap" (list . "clientCA" "client-ca"))) -}}
{{- fail "clientCA.names: they are looked for in a certificate that clientCA.inline or clientCA.existingConfigMap vouches for" -}}
{{- end -}}
{{- $tested := .Values.tests.namespace -}}
{{- if and (or .Values.tests.admitted .Values.tests.denied) (or (eq $tested .Release.Namespace) (has $tested .Values.exemptNamespaces)) -}}
{{- fail (printf "tests.namespace: nothing is examined in %s" $tested) -}}
{{- end -}}
{{- end -}}
