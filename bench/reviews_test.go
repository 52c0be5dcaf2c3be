// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/pratique-dev/pratique/registry/registrytest"
)

// go test ./bench -update writes the files.
var update = flag.Bool("update", false, "write testdata/review-*.json")

// padding is the annotation that brings a review to its size.
const padding = "acme.example/notes"

func TestReviewsAreFresh(t *testing.T) {
	for _, tt := range []struct {
		file string
		size int
		pod  *corev1.Pod
	}{
		{"testdata/review-1k.json", 1 << 10, smallPod()},
		{"testdata/review-16k.json", 16 << 10, largePod(t)},
	} {
		t.Run(tt.file, func(t *testing.T) {
			want := fitted(t, tt.pod, tt.size)
			if *update {
				if err := os.WriteFile(tt.file, want, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, err := os.ReadFile(tt.file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s is stale: run go test ./bench -update", tt.file)
			}
			if len(got) != tt.size {
				t.Errorf("%s has %d bytes, want %d", tt.file, len(got), tt.size)
			}
		})
	}
}

// TestReviewCopies makes sure that filling in changes the images and the uid,
// and nothing of the size.
func TestReviewCopies(t *testing.T) {
	var images []registrytest.Image
	for _, repository := range repositories {
		images = append(images, registrytest.Image{
			Registry: "127.0.0.1:40123", Repository: repository, Tag: reviewTag, Digest: "sha256:" + strings.Repeat("5e", 32),
		})
	}
	for name, raw := range map[string][]byte{"1 KB": review1K, "16 KB": review16K} {
		t.Run(name, func(t *testing.T) {
			r, err := newReview(name, raw, images)
			if err != nil {
				t.Fatal(err)
			}
			body := r.copyTo(nil, 4711)
			var got admissionv1.AdmissionReview
			if err := json.Unmarshal(body, &got); err != nil {
				t.Fatal(err)
			}
			if want := uidOf(4711); string(got.Request.UID) != want {
				t.Errorf("uid = %q, want %q", got.Request.UID, want)
			}
			if len(body) != len(raw) {
				t.Errorf("the copy has %d bytes, want %d", len(body), len(raw))
			}
			var pod corev1.Pod
			if err := json.Unmarshal(got.Request.Object.Raw, &pod); err != nil {
				t.Fatal(err)
			}
			for _, c := range append(pod.Spec.InitContainers, pod.Spec.Containers...) {
				if !strings.HasPrefix(c.Image, "127.0.0.1:40123/acme/") || !strings.HasSuffix(c.Image, "@"+images[0].Digest) {
					t.Errorf("container %s has the image %q", c.Name, c.Image)
				}
			}
			if bytes.Contains(body, []byte(digestPlaceholder(0))) {
				t.Error("a placeholder was left")
			}
		})
	}
	t.Run("port of four digits", func(t *testing.T) {
		short := bytes.Clone(review1K)
		image := images[0]
		image.Registry = "127.0.0.1:5000"
		if _, err := newReview("1 KB", short, []registrytest.Image{image}); err == nil {
			t.Error("a review of another size was let through")
		}
	})
}

// fitted marshals the review of a Pod and pads it to size.
func fitted(t *testing.T, pod *corev1.Pod, size int) []byte {
	t.Helper()
	raw := marshalled(t, pod)
	missing := size - len(raw)
	if missing < 0 {
		t.Fatalf("the review has %d bytes more than its size", -missing)
	}
	const notes = "Rolled out by the pipeline of the shop; roll back with the previous digest. "
	pod.Annotations[padding] = strings.Repeat(notes, missing/len(notes)+1)[:missing]
	return marshalled(t, pod)
}

func marshalled(t *testing.T, pod *corev1.Pod) []byte {
	t.Helper()
	object, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	kind := metav1.GroupVersionKind{Version: "v1", Kind: "Pod"}
	pods := metav1.GroupVersionResource{Version: "v1", Resource: "pods"}
	request := &admissionv1.AdmissionRequest{
		UID: uidPlaceholder, Kind: kind, Resource: pods, Namespace: pod.Namespace, Operation: admissionv1.Create,
		Object: runtime.RawExtension{Raw: object},
	}
	if pod.GenerateName != "" {
		dryRun := false
		request.RequestKind, request.RequestResource, request.DryRun = &kind, &pods, &dryRun
		request.UserInfo = authenticationv1.UserInfo{
			Username: "system:serviceaccount:kube-system:replicaset-controller", UID: "0d1f1c52-7a64-4c0f-b0c2-2f5a3d7e9b11",
			Groups: []string{"system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"},
			Extra: map[string]authenticationv1.ExtraValue{
				"authentication.kubernetes.io/credential-id": {"JTI=3a1cf0de-2f0b-4f6e-b7a0-6a55b1c6b5ad"},
			},
		}
		request.Options = runtime.RawExtension{Raw: []byte(`{"kind":"CreateOptions","apiVersion":"meta.k8s.io/v1"}`)}
	} else {
		request.UserInfo = authenticationv1.UserInfo{Username: "admin", Groups: []string{"system:authenticated"}}
	}
	raw, err := json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"}, Request: request,
	})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// smallPod is as kubectl run makes it.
func smallPod() *corev1.Pod {
	return &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			Name: "api", Namespace: "shop", Labels: map[string]string{"app": "api"}, Annotations: map[string]string{padding: ""},
		},
		Spec: corev1.PodSpec{
			ServiceAccountName: "default",
			Containers: []corev1.Container{{
				Name: "api", Image: written(0), Ports: []corev1.ContainerPort{{ContainerPort: 8080}},
			}},
		},
	}
}

// largePod is as a ReplicaSet makes it, of four different images, in a mesh.
func largePod(t *testing.T) *corev1.Pod {
	t.Helper()
	yes, no, user, controller := true, false, int64(10001), true
	security := &corev1.SecurityContext{
		RunAsNonRoot: &yes, RunAsUser: &user, ReadOnlyRootFilesystem: &yes, AllowPrivilegeEscalation: &no,
		Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
	container := func(name string, image, variables int) corev1.Container {
		c := corev1.Container{
			Name: name, Image: written(image), ImagePullPolicy: corev1.PullIfNotPresent, SecurityContext: security,
			Args:                   []string{"--listen=:8080", "--log-format=json", "--config=/etc/shop/" + name + ".yaml"},
			TerminationMessagePath: "/dev/termination-log", TerminationMessagePolicy: corev1.TerminationMessageReadFile,
			Resources: corev1.ResourceRequirements{
				Requests: corev1.ResourceList{"cpu": resource.MustParse("100m"), "memory": resource.MustParse("128Mi")},
				Limits:   corev1.ResourceList{"memory": resource.MustParse("256Mi")},
			},
			VolumeMounts: []corev1.VolumeMount{
				{Name: "config", MountPath: "/etc/shop", ReadOnly: true},
				{Name: "kube-api-access", MountPath: "/var/run/secrets/kubernetes.io/serviceaccount", ReadOnly: true},
			},
		}
		for i := range variables {
			c.Env = append(c.Env, corev1.EnvVar{
				Name: fmt.Sprintf("SHOP_BACKEND_%02d_URL", i), Value: fmt.Sprintf("https://backend-%02d.shop.svc.cluster.local:8443/v1", i),
			})
		}
		return c
	}
	served := func(c corev1.Container) corev1.Container {
		probe := &corev1.Probe{
			ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/healthz", Port: intstr.FromString("http"), Scheme: "HTTP"}},
			PeriodSeconds: 10, TimeoutSeconds: 1, SuccessThreshold: 1, FailureThreshold: 3,
		}
		c.Ports = []corev1.ContainerPort{{Name: "http", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}}
		c.LivenessProbe, c.ReadinessProbe = probe, probe
		return c
	}
	seconds, mode := int64(30), int32(0o644)
	pod := &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			GenerateName: "api-7d9c5b6f48-", Namespace: "shop",
			Labels: map[string]string{
				"app.kubernetes.io/name": "api", "app.kubernetes.io/part-of": "shop", "app.kubernetes.io/version": reviewTag,
				"pod-template-hash": "7d9c5b6f48",
			},
			Annotations: map[string]string{
				padding: "", "prometheus.io/scrape": "true", "prometheus.io/port": "8080",
				"checksum/config": strings.Repeat("c4", 32),
			},
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "api-7d9c5b6f48", UID: "9e0f6f0c-6c0e-4c9a-8f6a-5f1f3b1a7c21",
				Controller: &controller, BlockOwnerDeletion: &controller,
			}},
		},
		Spec: corev1.PodSpec{
			ServiceAccountName: "api", DeprecatedServiceAccount: "api", RestartPolicy: corev1.RestartPolicyAlways,
			DNSPolicy: corev1.DNSClusterFirst, SchedulerName: "default-scheduler", TerminationGracePeriodSeconds: &seconds,
			SecurityContext: &corev1.PodSecurityContext{FSGroup: &user},
			InitContainers:  []corev1.Container{container("migrate", 1, 16)},
			Containers: []corev1.Container{
				served(container("api", 0, 36)), served(container("proxy", 2, 20)), served(container("exporter", 3, 8)),
			},
			Volumes: []corev1.Volume{
				{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
					LocalObjectReference: corev1.LocalObjectReference{Name: "api"}, DefaultMode: &mode,
				}}},
				{Name: "kube-api-access", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
					DefaultMode: &mode, Sources: []corev1.VolumeProjection{
						{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}},
						{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"}}},
					},
				}}},
			},
			Tolerations: []corev1.Toleration{
				{Key: "node.kubernetes.io/not-ready", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute},
				{Key: "node.kubernetes.io/unreachable", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute},
			},
		},
	}
	pod.ManagedFields = managedBy(t, pod)
	return pod
}

// managedBy says, as the API server does, that one manager owns all of the
// spec.
func managedBy(t *testing.T, pod *corev1.Pod) []metav1.ManagedFieldsEntry {
	t.Helper()
	raw, err := json.Marshal(pod.Spec.Containers)
	if err != nil {
		t.Fatal(err)
	}
	var containers []map[string]any
	if err := json.Unmarshal(raw, &containers); err != nil {
		t.Fatal(err)
	}
	fields := map[string]any{}
	for _, c := range containers {
		owned := map[string]any{".": map[string]any{}}
		for name := range c {
			owned["f:"+name] = map[string]any{}
		}
		fields[fmt.Sprintf(`k:{"name":%q}`, c["name"])] = owned
	}
	if raw, err = json.Marshal(map[string]any{"f:spec": map[string]any{"f:containers": fields}}); err != nil {
		t.Fatal(err)
	}
	at := metav1.NewTime(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	return []metav1.ManagedFieldsEntry{{
		Manager: "kube-controller-manager", Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "v1",
		Time: &at, FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(string(raw)),
	}}
}
