// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cosign_test

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/cosign"
	"github.com/pratique-dev/pratique/reference"
	"github.com/pratique-dev/pratique/registry"
	"github.com/pratique-dev/pratique/registry/credential"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// soon is how long a verdict may take that waits for nothing.
const soon = 20 * time.Second

// modes are a registry with the referrers API and one without.
var modes = map[string][]registrytest.Option{
	"API": nil,
	"tag": {registrytest.WithoutReferrers()},
}

// forms are the ways in which cosign signs an image.
var forms = map[string]func(*testing.T, *registrytest.Registry, registrytest.Image, *registrytest.Key, ...string){
	".sig": func(t *testing.T, r *registrytest.Registry, i registrytest.Image, k *registrytest.Key, annotations ...string) {
		r.SignLegacy(t, i, k, annotations...)
	},
	"bundle": func(t *testing.T, r *registrytest.Registry, i registrytest.Image, k *registrytest.Key, annotations ...string) {
		r.SignBundle(t, i, k, annotations...)
	},
}

func newClient(t *testing.T, registries ...*registrytest.Registry) *registry.Client {
	t.Helper()
	o := registry.Options{AllowCIDRs: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	for _, r := range registries {
		o.Insecure = append(o.Insecure, r.Host())
	}
	client, err := registry.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func asked(t *testing.T, image registrytest.Image) policy.Image {
	t.Helper()
	ref, err := reference.Parse(image.ByDigest())
	if err != nil {
		t.Fatal(err)
	}
	return policy.Image{Reference: ref, Digest: image.Digest, Credentials: credential.None()}
}

// by is an authority with a key and annotations written "key=value".
func by(name string, key *registrytest.Key, annotations ...string) cosign.Authority {
	a := cosign.Authority{Name: name, Keys: [][]byte{[]byte(key.PublicPEM())}}
	for _, annotation := range annotations {
		if a.Annotations == nil {
			a.Annotations = map[string]string{}
		}
		k, v, _ := strings.Cut(annotation, "=")
		a.Annotations[k] = v
	}
	return a
}

func newVerifier(t *testing.T, source cosign.Source, authorities ...cosign.Authority) *cosign.Verifier {
	t.Helper()
	v, err := cosign.New(cosign.Options{Source: source}, authorities)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// verdict judges an image in r by authorities, with a client that remembers
// nothing.
func verdict(t *testing.T, r *registrytest.Registry, image registrytest.Image, authorities ...cosign.Authority) policy.Verdict {
	t.Helper()
	return newVerifier(t, newClient(t, r), authorities...).Verify(t.Context(), asked(t, image))
}

// want is an expected verdict. Says is part of its message.
type want struct {
	outcome policy.Outcome
	reason  policy.Reason
	says    string
}

func accepted(signer string) want {
	return want{policy.Accepted, policy.ReasonVerified, signer}
}

var (
	unsigned = want{policy.Rejected, policy.ReasonNoSignature, "no signature"}
	noMatch  = want{policy.Rejected, policy.ReasonNoMatch, "no signature matches its key"}
)

func (w want) check(t *testing.T, got policy.Verdict) {
	t.Helper()
	if got.Outcome != w.outcome || got.Reason != w.reason || !strings.Contains(got.Message, w.says) {
		t.Errorf("verdict = %s %s: %s; want %s %s: …%s…", got.Outcome, got.Reason, got.Message, w.outcome, w.reason, w.says)
	}
	if (got.Signer != "") != (w.outcome == policy.Accepted) {
		t.Errorf("signer = %q of %s", got.Signer, got.Outcome)
	}
	if strings.ContainsAny(got.Message, "\r\n\x00\x1b") || len(got.Message) > 2<<10 {
		t.Errorf("message = %q, want one short line", got.Message)
	}
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// inTime fails the test if what it defers came back late.
func inTime(t *testing.T, limit time.Duration) func() {
	t.Helper()
	began := time.Now()
	return func() {
		t.Helper()
		if took := time.Since(began); took > limit {
			t.Errorf("took %v, want at most %v", took, limit)
		}
	}
}
