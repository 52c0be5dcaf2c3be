// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/registry/credential"
)

// live is the Set in force. It is swapped as a whole; a request keeps the one
// it began with.
type live struct {
	set atomic.Pointer[policy.Set]
	// unread and undone have the rules compiled again: what could not be read,
	// and what could not be compiled for no fault of its own.
	unread, undone alarm
}

// Set returns the rules in force, nil until the first were read.
func (l *live) Set() *policy.Set { return l.set.Load() }

// rulesOf collects the rules of compiled ImageConfigs.
func rulesOf(compiled []Compiled) []*policy.Rule {
	var rules []*policy.Rule
	for _, c := range compiled {
		rules = append(rules, c.Rule)
		if c.Rewritten != nil {
			rules = append(rules, c.Rewritten)
		}
	}
	return rules
}

// compileAgain is when rules are compiled again because the compiler had trouble
// of its own, as with starting a process.
const compileAgain = 5 * time.Second

// alarm has something done after a while: once, however often it is set.
type alarm struct {
	mutex sync.Mutex
	timer *time.Timer
}

func (a *alarm) set(after time.Duration, act func()) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	if a.timer != nil {
		a.timer.Stop()
	}
	a.timer = time.AfterFunc(after, act)
}

func retry(compiled []Compiled) bool {
	return slices.ContainsFunc(compiled, func(c Compiled) bool { return c.retry })
}

// pending names the rules that wait for what is being fetched, as their kind and
// name.
func pending(compiled []Compiled) []string {
	var names []string
	for _, c := range compiled {
		if c.Pending {
			names = append(names, c.Rule.Kind+"/"+c.Rule.Name)
		}
	}
	return names
}

// purposes are those for which one rule is enough, and what of a rule they use.
var purposes = []struct {
	what string
	of   func(*policy.Rule) bool
}{
	{"registry.authentication", func(r *policy.Rule) bool { return r.Authentication != nil }},
	{"registry.tls or insecurePlainHTTP", func(r *policy.Rule) bool { return r.Transport != nil }},
	{"rewriteImage", func(r *policy.Rule) bool { return r.Rewrite != nil }},
}

// finish sees to what compiled ImageConfigs are to one another.
func (c Compiler) finish(compiled []Compiled) {
	c.refuseLoops(compiled)
	// Kinds come first in nobody's place but their own.
	own := slices.IndexFunc(compiled, func(one Compiled) bool { return one.Rule.Kind == KindCrossplane })
	if own < 0 {
		own = len(compiled)
	}
	noteConflicts(compiled[:own])
	noteConflicts(compiled[own:])
}

// noteConflicts tells ImageConfigs over which another one is chosen for such a
// purpose: of equal prefixes the first by name (spec section 3).
func noteConflicts(compiled []Compiled) {
	for _, purpose := range purposes {
		first := map[string]string{}
		having := func(yield func(*Compiled, string) bool) {
			for i := range compiled {
				for _, prefix := range compiled[i].Rule.Prefixes {
					if purpose.of(compiled[i].Rule) && !yield(&compiled[i], prefix.Text) {
						return
					}
				}
			}
		}
		for c, prefix := range having {
			if name, ok := first[prefix]; !ok || c.Rule.Name < name {
				first[prefix] = c.Rule.Name
			}
		}
		for c, prefix := range having {
			if name := first[prefix]; name != c.Rule.Name {
				c.Message += fmt.Sprintf("; %s of ImageConfig %q comes first for %s, where both apply", purpose.what, name, prefix)
			}
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
	if secret == nil || !credential.HoldsCredentials(string(secret.Type)) {
		return pullSecret{passed: "does not exist, or is not of the type " + credential.Types}
	}
	config, err := parsePullSecret(secret)
	return pullSecret{config: config, err: err}
}

// account is what is kept of a ServiceAccount: the names of its pull secrets.
type account struct {
	missing     bool
	pullSecrets []string
}

func readAccount(object *corev1.ServiceAccount) account {
	var read account
	for _, reference := range object.ImagePullSecrets {
		if reference.Name != "" {
			read.pullSecrets = append(read.pullSecrets, reference.Name)
		}
	}
	return read
}

// store finds objects in any namespace. Its errors say that it is not known
// whether there is one.
type store interface {
	pullSecret(ctx context.Context, namespace, name string) (pullSecret, error)
	account(ctx context.Context, namespace, name string) (account, error)
}

// credentials finds an object's credentials: those of the pull secrets that it
// names and, after the selected rule's, those of its ServiceAccount. All are read
// when they are first needed, in one namespace only.
func credentials(from store, names credential.Names) *credential.Source {
	return credential.NewSource(func(ctx context.Context) (credential.Found, error) {
		s := search{store: from, namespace: names.Namespace, expected: names.Expected}
		if names.ServiceAccount != "" {
			if err := s.askAccount(ctx, names.ServiceAccount); err != nil {
				return credential.Found{}, err
			}
		}
		// The API server writes a ServiceAccount's into the Pods that have none.
		later := slices.DeleteFunc(slices.Clone(s.named), func(name string) bool { return slices.Contains(names.PullSecrets, name) })
		// What Pratique adds itself must not be one too many.
		if n := len(names.PullSecrets) + len(later) - len(names.Expected); n > credential.MaxSecrets {
			whose := ""
			if len(later) > 0 {
				whose = ", its ServiceAccount's among them"
			}
			return credential.Found{}, fmt.Errorf("it names %d pull secrets%s, of which at most %d are read", n, whose, credential.MaxSecrets)
		}
		var err error
		if s.found.Configs, err = s.read(ctx, names.PullSecrets); err != nil {
			return s.found, err
		}
		s.found.Last, err = s.read(ctx, later)
		return s.found, err
	})
}

// search is one look for credentials in one namespace.
type search struct {
	store
	namespace string
	expected  []string // in a moment, if not yet
	named     []string // by the ServiceAccount
	found     credential.Found
}

func (s *search) warnf(format string, args ...any) {
	s.found.Warnings = append(s.found.Warnings, fmt.Sprintf(format, args...))
}

func (s *search) askAccount(ctx context.Context, name string) error {
	account, err := s.account(ctx, s.namespace, name)
	if err != nil {
		return fmt.Errorf("reading ServiceAccount %q: %w", name, err)
	}
	if account.missing {
		s.warnf("ServiceAccount %q does not exist", name)
	}
	s.named = account.pullSecrets
	return nil
}

func (s *search) read(ctx context.Context, names []string) ([]credential.Config, error) {
	var configs []credential.Config
	for _, name := range names {
		secret, err := s.pullSecret(ctx, s.namespace, name)
		if err = cmp.Or(err, secret.err); err != nil {
			return nil, fmt.Errorf("reading pull secret %q: %w", name, err)
		}
		if secret.passed != "" {
			if !slices.Contains(s.expected, name) {
				s.warnf("pull secret %q %s", name, secret.passed)
			}
			continue
		}
		configs = append(configs, secret.config)
	}
	return configs, nil
}

// namespaceOf describes a namespace by its labels.
func namespaceOf(name string, set map[string]string) policy.Namespace {
	return policy.Namespace{Name: name, Labels: labels.Set(set)}
}
