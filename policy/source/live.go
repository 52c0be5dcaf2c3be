// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"cmp"
	"context"
	"fmt"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/registry/credential"
)

// live is the Set in force. It is swapped as a whole; a request keeps the one
// it began with.
type live struct {
	set atomic.Pointer[policy.Set]
}

// Set returns the rules in force, nil until the first were read.
func (l *live) Set() *policy.Set { return l.set.Load() }

// rulesOf collects the rules of compiled ImageConfigs.
func rulesOf(compiled []Compiled) []*policy.Rule {
	rules := make([]*policy.Rule, len(compiled))
	for i, c := range compiled {
		rules[i] = c.Rule
	}
	return rules
}

// noteConflicts tells ImageConfigs whose pull secret another one's is chosen
// over: of equal prefixes the first by name (spec section 3).
func noteConflicts(compiled []Compiled) {
	first := map[string]string{}
	bringing := func(yield func(*Compiled, string) bool) {
		for i := range compiled {
			for _, prefix := range compiled[i].Rule.Prefixes {
				if compiled[i].Rule.PullSecret != nil && !yield(&compiled[i], prefix.Text) {
					return
				}
			}
		}
	}
	for c, prefix := range bringing {
		if name, ok := first[prefix]; !ok || c.Rule.Name < name {
			first[prefix] = c.Rule.Name
		}
	}
	for c, prefix := range bringing {
		if name := first[prefix]; name != c.Rule.Name {
			c.Message += fmt.Sprintf("; the pull secret of ImageConfig %q comes first for %s, where both apply", name, prefix)
		}
	}
}

// pullSecret is what is kept of a Secret that an object names: its credentials,
// or why it brings none.
type pullSecret struct {
	config credential.Config
	// passed is why it is passed over, in the words of a warning.
	passed string
	// err is why it cannot be read. What it would have brought is unknown then.
	err error
}

// readPullSecret reads a Secret; nil is one that does not exist. Which Secrets a
// namespace has beside pull secrets is not told: whoever asks need not be
// allowed to list them.
func readPullSecret(secret *corev1.Secret) pullSecret {
	if secret == nil || secret.Type != credential.TypeDockerConfigJSON {
		return pullSecret{passed: "does not exist, or is not of the type " + credential.TypeDockerConfigJSON}
	}
	config, err := parsePullSecret(secret)
	return pullSecret{config: config, err: err}
}

// getPullSecret finds a Secret in any namespace. Its error says that it is not
// known whether there is one.
type getPullSecret func(ctx context.Context, namespace, name string) (pullSecret, error)

// pullSecrets makes the credentials of an object from the names of its pull
// secrets. They are read when they are first needed, in one namespace only.
func pullSecrets(get getPullSecret, namespace string, names []string) *credential.Source {
	return credential.NewSource(func(ctx context.Context) (credential.Found, error) {
		var found credential.Found
		if len(names) > credential.MaxSecrets {
			return found, fmt.Errorf("it names %d pull secrets, of which at most %d are read", len(names), credential.MaxSecrets)
		}
		for _, name := range names {
			secret, err := get(ctx, namespace, name)
			if err = cmp.Or(err, secret.err); err != nil {
				return found, fmt.Errorf("reading pull secret %q: %w", name, err)
			}
			if secret.passed != "" {
				found.Warnings = append(found.Warnings, fmt.Sprintf("pull secret %q %s", name, secret.passed))
				continue
			}
			found.Configs = append(found.Configs, secret.config)
		}
		return found, nil
	})
}

// namespaceOf describes a namespace by its labels.
func namespaceOf(name string, set map[string]string) policy.Namespace {
	return policy.Namespace{Name: name, Labels: labels.Set(set)}
}
