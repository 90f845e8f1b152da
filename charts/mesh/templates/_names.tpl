{{- /* The image of a program: (list $ "mesh-node"). */ -}}
{{- define "mesh.image" -}}
{{- $root := index . 0 -}}
{{ $root.Values.image.registry }}/{{ index . 1 }}:{{ $root.Values.image.tag | default $root.Chart.AppVersion }}
{{- end -}}

{{- /* Labels of every object: (list $ "mesh-node"). */ -}}
{{- define "mesh.labels" -}}
{{- $root := index . 0 -}}
{{ include "mesh.selector" (index . 1) }}
app.kubernetes.io/part-of: mesh
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
{{- end -}}

{{- define "mesh.selector" -}}
app.kubernetes.io/name: {{ . }}
{{- end -}}

{{- /* What translation reads; mesh-control has these rights, and nodes where they watch for themselves. */ -}}
{{- define "mesh.readRules" -}}
# Who runs where, under which account, with which labels.
- apiGroups: [""]
  resources: [namespaces, nodes, pods, serviceaccounts, services]
  verbs: [get, list, watch]
# The mesh configuration: that one ConfigMap, and no other.
- apiGroups: [""]
  resources: [configmaps]
  resourceNames: [istio]
  verbs: [get, list, watch]
# Which pods stand behind a Service.
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, list, watch]
# What is allowed, and how connections are made.
- apiGroups: [security.istio.io]
  resources: [authorizationpolicies, peerauthentications, requestauthentications]
  verbs: [get, list, watch]
- apiGroups: [networking.istio.io]
  resources: [destinationrules, envoyfilters, gateways, serviceentries, virtualservices, workloadentries]
  verbs: [get, list, watch]
- apiGroups: [telemetry.istio.io]
  resources: [telemetries]
  verbs: [get, list, watch]
# How many requests may pass.
- apiGroups: [policy.mesh.dev]
  resources: [ratelimitpolicies]
  verbs: [get, list, watch]
- apiGroups: [gateway.networking.k8s.io]
  resources: [backendtlspolicies, gatewayclasses, gateways, grpcroutes, httproutes, listenersets, referencegrants, tcproutes, tlsroutes]
  verbs: [get, list, watch]
{{- end -}}

{{- /* What mesh-control does for Gateways' Secrets. */ -}}
{{- define "mesh.secretRules" -}}
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch]
- apiGroups: [rbac.authorization.k8s.io]
  resources: [roles, rolebindings]
  verbs: [get, create, patch, delete]
{{- end -}}
