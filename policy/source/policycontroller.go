// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"fmt"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/cosign"
	"github.com/pratique-dev/pratique/policy/trust"
)

// PolicyController says how the objects of Sigstore's policy-controller are read,
// which are never written and never required.
type PolicyController struct {
	// Namespace is policy-controller's own: its configuration is there, and what
	// its policies name.
	Namespace string
	// All says that its policies govern all namespaces, and what is in none; else
	// those are governed that carry the label policy.sigstore.dev/include=true.
	All bool
	// Configs reads the configs of images, for policies that ask for them.
	Configs cosign.Configs
	// Repository returns the trust root of a repository of The Update Framework,
	// by its address and its root.json. It does not wait; see Compiler.Trust. Nil
	// means that none is asked.
	Repository func(mirror string, root []byte) (*trust.Root, error)

	// archives remembers the roots of repositories that came as a whole; nil
	// remembers nothing.
	archives *archives
}

// policyObjects are policy-controller's objects as they were read.
type policyObjects struct {
	// served says that its policies can be there at all.
	served bool
	// policies and roots are ClusterImagePolicies and TrustRoots, as JSON.
	policies, roots [][]byte
}

// The ConfigMap of policy-controller's own settings, and its one key that says
// something of images (policy-controller v0.13, pkg/config).
const (
	policyControllerConfig = "config-policy-controller"
	noMatchPolicy          = "no-match-policy"
)

// imagePolicies compiles policy-controller's objects.
func (c Compiler) imagePolicies(from policyObjects, objects Objects) []Compiled {
	if !from.served && len(from.policies) == 0 {
		return nil
	}
	// What is named without a namespace is in policy-controller's.
	c.namespace, c.cluster = c.PolicyController.Namespace, false
	roots := newTrustRoots(c, from.roots, objects)
	var compiled []Compiled
	for _, raw := range from.policies {
		compiled = append(compiled, c.imagePolicy(raw, roots))
	}
	if rest := c.unmatchedByPolicies(objects); rest != nil {
		compiled = append(compiled, *rest)
	}
	return compiled
}

// unmatchedByPolicies is the rule for images that no policy matches, nil if they
// are let in.
func (c Compiler) unmatchedByPolicies(objects Objects) *Compiled {
	config, err := objects.ConfigMap(c.namespace, policyControllerConfig)
	rule := &policy.Rule{
		Kind: "ConfigMap", Name: policyControllerConfig, Mode: policy.Enforce,
		Namespaces: c.PolicyController.selector(), Globs: c.PolicyController.globs(),
	}
	rule.Globs.Rest = true
	compiled := Compiled{Rule: rule, Ready: true, Message: inForce}
	// Anything but the other two denies, as in policy-controller itself.
	why := "which is so by default"
	if config != nil {
		switch set := config.Data[noMatchPolicy]; set {
		case "allow":
			return nil
		case modeWarn:
			rule.Mode, why = policy.Audit, fmt.Sprintf("%s: %s", noMatchPolicy, set)
		case "deny":
			why = fmt.Sprintf("%s: %s", noMatchPolicy, set)
		}
	}
	verdict := policy.Refused(policy.ReasonUnmatched, "no ClusterImagePolicy matches it (%s, in namespace %q)", why, c.namespace)
	if err != nil {
		verdict = policy.Undecided(policy.ReasonNotReady, "what holds for images that no ClusterImagePolicy matches cannot be read: %s", short(err))
		compiled.Ready, compiled.Message = false, verdict.Message
	}
	rule.Verification = &policy.Verification{Engine: cosign.Engine, Fixed: &verdict}
	return &compiled
}
