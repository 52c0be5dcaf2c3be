// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/cosign"
	"github.com/pratique-dev/pratique/policy/source"
	"github.com/pratique-dev/pratique/reference"
	"github.com/pratique-dev/pratique/registry"
	"github.com/pratique-dev/pratique/registry/credential"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// TestColdForms makes sure, without a server or a clock, that the policies of
// the cold rows are read, that each form is Accepted by the one that covers it
// and by no other, and that it takes no more registry requests than its row
// allows.
func TestColdForms(t *testing.T) {
	if err := within(func(tb *scope) error {
		b := &bench{options: options{dir: t.TempDir()}, tb: tb}
		if _, err := b.prepare(); err != nil {
			return err
		}
		c := &cold{bench: b}
		client := coldClient(t, b.registry)
		files, err := source.NewFiles(source.Compiler{Cosign: cosign.Options{Source: client}}, "pratique-system", b.many)
		if err != nil {
			return err
		}
		ready := 0
		for _, compiled := range files.Compiled() {
			if !compiled.Ready {
				t.Fatalf("%s: %s", compiled.Rule.Name, compiled.Message)
			}
			ready++
		}
		if want := manyConfigs + 2; ready != want {
			t.Errorf("%d ImageConfigs, want %d", ready, want)
		}
		folders := []string{"acme/", keylessFolder, manyFolder}
		for _, f := range slices.Concat(c.keyedForms(), c.keylessForms(), c.manyForms()) {
			judge(t, c, files.Set(), f, true)
			if n := len(b.registry.Counted()); n > f.limit {
				t.Errorf("%s: %d requests, want at most %d: %v", f.name, n, f.limit, b.registry.Counted())
			}
			for _, folder := range folders {
				if folder != f.folder {
					elsewhere := f
					elsewhere.folder = folder
					judge(t, c, files.Set(), elsewhere, false)
				}
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func coldClient(t *testing.T, r *registrytest.Registry) *registry.Client {
	t.Helper()
	client, err := registry.New(registry.Options{
		AllowCIDRs: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Insecure: []string{r.Host()},
	})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// judge resolves and verifies a fresh image of a form, as both passes together
// do.
func judge(t *testing.T, c *cold, set *policy.Set, f form, accepted bool) {
	t.Helper()
	image := c.fresh(f)
	ref, err := reference.Parse(image.ByTag())
	if err != nil {
		t.Fatal(err)
	}
	asked := policy.Image{Reference: ref, Credentials: credential.None()}
	resolution, err := coldClient(t, c.registry).Resolve(t.Context(), asked)
	if err != nil {
		t.Fatal(err)
	}
	asked.Digest = resolution.Digest
	rules := set.Select(ref, policy.Namespace{}).Verification
	if len(rules) != 1 {
		t.Fatalf("%s: %d rules cover %q", f.name, len(rules), image)
	}
	verdict := policy.Direct{}.Verify(t.Context(), rules[0], asked)
	if (verdict.Outcome == policy.Accepted) != accepted {
		t.Errorf("%s in %s: %+v, want accepted %t", f.name, f.folder, verdict, accepted)
	}
}
