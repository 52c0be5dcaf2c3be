// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package issuer_test

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/pratique-dev/pratique/e2e/helm"
	"github.com/pratique-dev/pratique/e2e/issuer"
)

// charts: what the chart asks cert-manager for is what its Deployment mounts and
// its webhook configurations name.
func (w *world) charts(t *testing.T) {
	w.apply(t, authority(issuer.Namespace, "ClusterIssuer"))
	for _, test := range []struct {
		name string
		set  string
		// names that the certificate is for
		names []string
	}{
		{"own", "", []string{"pratique.own.svc"}},
		{"given", "certificates.certManager.issuerRef.kind=ClusterIssuer,certificates.certManager.issuerRef.name=authority," +
			"webhook.url=https://192.0.2.7:8443", []string{"pratique.given.svc", "192.0.2.7"}},
		{"named", "webhook.url=https://pratique.example.com,certificates.certManager.duration=24h0m0s," +
			"certificates.certManager.renewBefore=8h0m0s", []string{"pratique.named.svc", "pratique.example.com"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w.kubectl(t, "create", "namespace", test.name)
			r := render(t, test.name, test.set)
			w.apply(t, r.wanted, "--server-side", "--field-manager=helm")
			w.kubectl(t, "wait", "--for=condition=Ready", "certificates", "--all", "--namespace="+test.name, "--timeout="+doneWithin.String())
			secret := w.secret(t, test.name, r.mounted)
			for _, name := range test.names {
				verify(t, secret, name)
			}
			w.inject(t, test.name, r.injected, secret.Data["ca.crt"])
			if drift := w.Drift(t.Context(), r.wanted); drift != "" {
				t.Errorf("drift: %s", drift)
			}
		})
	}
}

// rendered is what the chart makes.
type rendered struct {
	// wanted are the objects of cert-manager's kinds.
	wanted string
	// mounted is the Secret that is mounted in the folder of the certificates.
	mounted string
	// injected is the Certificate, as namespace/name, that the webhook
	// configurations name to the cainjector.
	injected string
}

// render has Helm render the chart as a release in a namespace.
func render(t *testing.T, namespace, set string) rendered {
	t.Helper()
	var r rendered
	var config struct {
		CertDir            string   `json:"cert-dir"`
		WebhookAnnotations []string `json:"webhook-annotations"`
	}
	var deployment appsv1.Deployment
	manifest, err := helm.Template(t.Context(), namespace, "--set", "certificates.certManager.enabled=true", "--set", set)
	if err != nil {
		t.Fatal(err)
	}
	objects, err := helm.Objects(manifest)
	if err != nil {
		t.Fatal(err)
	}
	for _, object := range objects {
		switch kind := object.GroupVersionKind(); {
		case kind.Group == "cert-manager.io":
			raw, err := object.MarshalJSON()
			if err != nil {
				t.Fatal(err)
			}
			r.wanted += "---\n" + string(raw) + "\n"
		case kind.Kind == "ConfigMap" && object.GetName() == "pratique":
			text, _, _ := unstructured.NestedString(object.Object, "data", "config.yaml")
			if err := yaml.Unmarshal([]byte(text), &config); err != nil {
				t.Fatal(err)
			}
		case kind.Kind == "Deployment":
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &deployment); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, annotation := range config.WebhookAnnotations {
		if from, found := strings.CutPrefix(annotation, "cert-manager.io/inject-ca-from="); found {
			r.injected = from
		}
	}
	r.mounted = mounted(deployment.Spec.Template.Spec, config.CertDir)
	if r.wanted == "" || r.mounted == "" || r.injected == "" {
		t.Fatalf("the chart makes %+v", r)
	}
	return r
}

// mounted is the name of the Secret that every replica finds in dir.
func mounted(pod corev1.PodSpec, dir string) string {
	for _, mount := range pod.Containers[0].VolumeMounts {
		for _, volume := range pod.Volumes {
			if mount.MountPath == dir && volume.Name == mount.Name && volume.Secret != nil {
				return volume.Secret.SecretName
			}
		}
	}
	return ""
}
