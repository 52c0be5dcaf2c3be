// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"k8s.io/apimachinery/pkg/labels"

	"github.com/pratique-dev/pratique/api/v1alpha1"
	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/reference"
)

// AllNamespaces stands for all namespaces in Compiler.InjectInto.
const AllNamespaces = "*"

// inject reads which Pods are given the pull secret.
func (c *compilation) inject(secret string, inject *v1alpha1.Inject) {
	if inject == nil {
		return
	}
	const path = "spec.registry.authentication.inject"
	if len(c.compiler.InjectInto) == 0 {
		c.pullProblems = append(c.pullProblems, wrong(v1alpha1.ReasonInjectionOff,
			"%s: this server gives Pods no secrets: --inject-namespaces says in which namespaces it may", path))
		return
	}
	selected := labels.Nothing() // no selector, no namespaces
	if inject.NamespaceSelector != nil {
		var err error
		if selected, err = inject.NamespaceSelector.AsSelector(); err != nil {
			c.pullProblems = append(c.pullProblems, wrong(v1alpha1.ReasonInvalid, "%s.namespaceSelector: %v", path, err))
			return
		}
	}
	// Where the ImageConfig does not govern, nobody is given its secret.
	if c.rule.Namespaces != nil {
		governed, _ := c.rule.Namespaces.Requirements()
		selected = selected.Add(governed...)
	}
	for _, prefix := range c.rule.Prefixes {
		if prefix.Reach != reference.ReachRepository {
			c.pullProblems = append(c.pullProblems, wrong(v1alpha1.ReasonInvalid,
				"%s: the prefix %s reaches into the tag or digest, which a Pod has or has not at different times: match without it", path, prefix.Text))
			return
		}
	}
	c.rule.Authentication.Inject = &policy.Inject{
		Secret: secret, Namespaces: selected, Within: c.compiler.within(), Except: c.compiler.namespace,
	}
}

// within holds the namespaces that may be injected into, nil for all.
func (c Compiler) within() map[string]bool {
	within := map[string]bool{}
	for _, name := range c.InjectInto {
		if name == AllNamespaces {
			return nil
		}
		within[name] = true
	}
	return within
}
