// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pratique-dev/pratique/webhook"
)

// benchmarkPod returns a Pod in JSON of about size bytes, of which containers and what else a Pod carries (managed
// fields, environment) have about equal shares.
func benchmarkPod(tb testing.TB, size int) []byte {
	tb.Helper()
	pod := corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			Name: "app", Namespace: "default", Labels: map[string]string{"app": "app"},
			Annotations: map[string]string{"note": ""},
		},
		Spec: corev1.PodSpec{ServiceAccountName: "default", RestartPolicy: corev1.RestartPolicyAlways},
	}
	for i := 0; ; i++ {
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{
			Name:  fmt.Sprintf("c%d", i),
			Image: "registry.example.com/acme/app:v1@sha256:" + strings.Repeat("ab", 32),
			Env:   []corev1.EnvVar{{Name: "A", Value: strings.Repeat("v", 64)}},
			VolumeMounts: []corev1.VolumeMount{{
				Name: "kube-api-access", ReadOnly: true, MountPath: "/var/run/secrets/kubernetes.io/serviceaccount",
			}},
		})
		raw, err := json.Marshal(pod)
		if err != nil {
			tb.Fatal(err)
		}
		if missing := size - len(raw); missing < 600 {
			pod.Annotations["note"] = strings.Repeat("n", max(missing, 0))
			if raw, err = json.Marshal(pod); err != nil {
				tb.Fatal(err)
			}
			return raw
		}
	}
}

func BenchmarkImages(b *testing.B) {
	row := lookup(b, load(b), "", "v1", "Pod")
	for _, size := range []int{1 << 10, 16 << 10} {
		raw := benchmarkPod(b, size)
		b.Run(fmt.Sprintf("%dKB", size>>10), func(b *testing.B) {
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			for b.Loop() {
				found, err := row.Find(raw)
				if err != nil || len(found.Images) == 0 {
					b.Fatalf("Find = %v, %v", found, err)
				}
			}
		})
	}
}

func BenchmarkChanged(b *testing.B) {
	row := lookup(b, load(b), "", "v1", "Pod")
	found, err := row.Find(benchmarkPod(b, 16<<10))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if changed := webhook.Changed(found, found); changed != nil {
			b.Fatal(changed)
		}
	}
}
