// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"fmt"
	"slices"
	"strings"
)

// policyControllerGroup is the group of policy-controller's kinds.
const policyControllerGroup = "policy.sigstore.dev"

// policyControllerVersions are those of each kind that can be read, the preferred
// one first. It is the one that is stored: another one is made of it by a webhook
// of policy-controller's own, which goes with it.
var policyControllerVersions = map[string][]string{
	KindClusterImagePolicy: {"v1alpha1", "v1beta1"},
	KindTrustRoot:          {"v1alpha1"},
}

// addPolicyController keeps an object of policy-controller's kinds as it is, and
// reports whether it is one.
func (m *manifests) addPolicyController(apiVersion, kind, name string, raw []byte) (is bool, err error) {
	version, ok := strings.CutPrefix(apiVersion, policyControllerGroup+"/")
	if !ok {
		return false, nil
	}
	if !slices.Contains(policyControllerVersions[kind], version) {
		return true, fmt.Errorf("no such kind: %s %s", apiVersion, kind)
	}
	if err := checkName(kind, name); err != nil {
		return true, err
	}
	into := &m.policyController.policies
	if kind == KindTrustRoot {
		into = &m.policyController.roots
	}
	*into = append(*into, raw)
	return true, m.once(kind, name)
}
