// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// policy-controller's policies and trust roots are read wherever they are served,
// and with them what they name in its namespace.
//
// +kubebuilder:rbac:groups=policy.sigstore.dev,resources=clusterimagepolicies;trustroots,verbs=list;watch

func policyControllerKinds(namespace string) otherGroup {
	return otherGroup{
		group: policyControllerGroup, versions: policyControllerVersions[KindClusterImagePolicy], namespace: namespace, configMaps: true,
		kinds: map[string]string{KindClusterImagePolicy: "clusterimagepolicies", KindTrustRoot: "trustroots"},
	}
}

// compilePolicies adds what policy-controller's objects are compiled to. What they
// name need not be tried again: the follower tells when it has read it.
func (c *Cluster) compilePolicies(ctx context.Context, compiled []Compiled) ([]Compiled, error) {
	f := c.policyController
	if f == nil {
		return compiled, nil
	}
	from := policyObjects{served: f.serves(KindClusterImagePolicy)}
	for kind, into := range map[string]*[][]byte{KindClusterImagePolicy: &from.policies, KindTrustRoot: &from.roots} {
		list, err := f.list(ctx, kind)
		if err != nil {
			return nil, err
		}
		for i := range list {
			raw, err := list[i].MarshalJSON()
			if err != nil {
				return nil, fmt.Errorf("reading %s %q: %w", kind, list[i].GetName(), err)
			}
			*into = append(*into, raw)
		}
	}
	return append(compiled, c.compiler.imagePolicies(from, Objects{
		// All of them are in the one namespace that is watched: keys of others
		// (k8s://) policy-controller's own validation refuses.
		Secret:    func(_, name string) (*corev1.Secret, error) { return f.secret(ctx, name) },
		ConfigMap: func(_, name string) (*corev1.ConfigMap, error) { return f.configMap(ctx, name) },
	})...), nil
}
