// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cases_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apply "k8s.io/client-go/applyconfigurations/admissionregistration/v1"

	"github.com/pratique-dev/pratique/e2e/cluster"
)

// inject does what cert-manager's cainjector does: it applies the authorities to
// every webhook that there is.
func (f *fleet) inject(t *testing.T, bundle []byte) {
	t.Helper()
	f.eventually(t, "the authorities are written", func(ctx context.Context) error {
		m, v, err := f.configurations(ctx)
		if err != nil || m == nil || v == nil {
			return fmt.Errorf("not both are there: %w", err)
		}
		mutating, validating := apply.MutatingWebhookConfiguration(m.Name), apply.ValidatingWebhookConfiguration(v.Name)
		client := apply.WebhookClientConfig().WithCABundle(bundle...)
		for _, w := range m.Webhooks {
			mutating.WithWebhooks(apply.MutatingWebhook().WithName(w.Name).WithClientConfig(client))
		}
		for _, w := range v.Webhooks {
			validating.WithWebhooks(apply.ValidatingWebhook().WithName(w.Name).WithClientConfig(client))
		}
		hooks, as := f.client.AdmissionregistrationV1(), metav1.ApplyOptions{FieldManager: "cainjector", Force: true}
		_, errM := hooks.MutatingWebhookConfigurations().Apply(ctx, mutating, as)
		_, errV := hooks.ValidatingWebhookConfigurations().Apply(ctx, validating, as)
		return errors.Join(errM, errV)
	})
}

// sleeping are the names of the webhooks, and whether they wait for authorities.
func (f *fleet) sleeping(ctx context.Context) (map[string]bool, error) {
	m, v, err := f.configurations(ctx)
	if err != nil || m == nil || v == nil {
		return nil, fmt.Errorf("not both are there: %w", err)
	}
	sleeps := func(conditions []admissionregistrationv1.MatchCondition) bool {
		return slices.ContainsFunc(conditions, func(c admissionregistrationv1.MatchCondition) bool { return c.Name == "waiting-for-authorities" })
	}
	all := map[string]bool{}
	for _, w := range m.Webhooks {
		all[w.Name] = sleeps(w.MatchConditions)
	}
	for _, w := range v.Webhooks {
		all[w.Name] = sleeps(w.MatchConditions)
	}
	return all, nil
}

// sleep waits until those webhooks sleep that are said to, and no others, and
// one is there or not.
func (f *fleet) sleep(t *testing.T, what string, sleeps func(name string) bool, one string, there bool) {
	t.Helper()
	f.eventually(t, what, func(ctx context.Context) error {
		all, err := f.sleeping(ctx)
		if err != nil {
			return err
		}
		for name, is := range all {
			if is != sleeps(name) {
				return fmt.Errorf("%v", all)
			}
		}
		if _, is := all[one]; is != there {
			return fmt.Errorf("there are %q", slices.Sorted(maps.Keys(all)))
		}
		return nil
	})
}

// TestInjectedAuthorities: somebody else writes the authorities. What is in force
// is so whatever becomes of another webhook, and one that is new waits for them.
func TestInjectedAuthorities(t *testing.T) {
	t.Parallel()
	const pods, others = "pods.pratique.dev", "others.mutate.pratique.dev"
	all, none := func(string) bool { return true }, func(string) bool { return false }
	f := newFleet(t)
	dir := t.TempDir()
	cert, err := cluster.NewServingCert(dir)
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"--cert-dir", dir, "--webhook-annotations", "cert-manager.io/inject-ca-from=a/b"}
	one := f.start(t, "one", args...)
	f.sleep(t, "nobody is asked yet", all, pods, true)
	f.inject(t, cert.CAPEM)
	f.eventually(t, "the webhook is asked", f.ask)
	f.sleep(t, "everybody is asked", none, pods, true)

	// One is deleted: the other is asked all the while.
	stop := f.stream(t)
	if _, stderr, exit := f.Kubectl(t.Context(), "delete", "mutatingwebhookconfiguration", "pratique"); exit != 0 {
		t.Fatal(stderr)
	}
	f.sleep(t, "what was deleted is back, and sleeps", func(name string) bool { return strings.Contains(name, ".mutate.") }, pods, true)
	f.inject(t, cert.CAPEM)
	f.sleep(t, "everybody is asked again", none, pods, true)
	if failures, asked := stop(); len(failures) > 0 || asked < 10 {
		t.Errorf("%d of %d requests went wrong:\n%s", len(failures), asked, strings.Join(failures, "\n"))
	}
	f.end(t, one)

	// Another webhook is wanted, and is wanted no more.
	config := filepath.Join(t.TempDir(), "config.yaml")
	row := "catalog:\n  rows:\n  - {group: example.com, versions: [v1], kinds: [{kind: Thing, resource: things}], images: [spec.image], pinned: true, decides: Here}\n"
	if err := os.WriteFile(config, []byte(row), 0o600); err != nil {
		t.Fatal(err)
	}
	two := f.start(t, "two", append([]string{"--config", config}, args...)...)
	f.sleep(t, "another is there, and sleeps", func(name string) bool { return name == others }, others, true)
	f.eventually(t, "the webhook is asked", f.ask)
	f.inject(t, cert.CAPEM)
	f.sleep(t, "the other is asked", none, others, true)
	f.end(t, two)
	three := f.start(t, "three", args...)
	f.sleep(t, "the other is gone", none, others, false)
	f.eventually(t, "the webhook is asked", f.ask)
	f.end(t, three)
}
