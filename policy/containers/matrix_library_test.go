// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package containers_test

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/types"

	"github.com/pratique-dev/pratique/policy"
)

// unread is an image with a signature, of which nothing more is known.
type unread struct {
	types.UnparsedImage // no other method is called
	reference           types.ImageReference
}

func (u unread) Reference() types.ImageReference { return u.reference }

func (u unread) Signatures(context.Context) ([][]byte, error) { return [][]byte{[]byte("x")}, nil }

func (u unread) Manifest(context.Context) ([]byte, string, error) {
	return nil, "", errors.New("nobody should look at it")
}

// byLibrary asks the library which scope of a policy it judges an image by: each
// of them has a key file that is not there, and the error names it.
func byLibrary(t *testing.T, scopes []string, written string) string {
	t.Helper()
	keyed := func(scope string) []requirement {
		return []requirement{{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/nowhere/<" + scope + ">"}}
	}
	scoped := lists{}
	for _, scope := range scopes {
		scoped[scope] = keyed(scope)
	}
	text := policyText(t, keyed("default"), scoped)
	parsed, err := signature.NewPolicyFromBytes([]byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	judge, err := signature.NewPolicyContext(parsed)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = judge.Destroy() }()
	ref, err := docker.ParseReference("//" + written)
	if err != nil {
		t.Fatal(err)
	}
	allowed, err := judge.IsRunningImageAllowed(t.Context(), unread{reference: ref})
	if allowed || err == nil {
		t.Fatalf("%s is allowed by keys that are not there", written)
	}
	_, scope, _ := strings.Cut(err.Error(), "/nowhere/<")
	scope, _, found := strings.Cut(scope, ">")
	if !found {
		t.Fatalf("%s: error = %v, want one that names the key file", written, err)
	}
	return scope
}

// bySelection asks our own.
func bySelection(t *testing.T, rules []*policy.Rule, written string) string {
	t.Helper()
	selection := policy.NewSet(rules).Select(images(t, written)[0].Reference, policy.Namespace{})
	if len(selection.Verification) != 1 || len(selection.Tagged)+len(selection.ByTag)+len(selection.ByDigest) > 0 {
		t.Fatalf("%s: selection = %+v, want one rule", written, selection)
	}
	return selection.Verification[0].Name
}

// names makes names of few parts, so that they often lie in one another.
type names struct{ *rand.Rand }

func (n names) one(of ...string) string { return of[n.IntN(len(of))] }

func (n names) host() string {
	return n.one("docker.io", "quay.io", "example.com", "a.example.com", "b.a.example.com", "localhost", "127.0.0.1") +
		n.one("", "", ":5000", ":8443")
}

func (n names) repository() string {
	host := n.host()
	parts := make([]string, 1+n.IntN(3))
	for i := range parts {
		parts[i] = n.one("a", "b", "library", "a-b", "a.b")
	}
	// Both sides take docker.io/a for docker.io/library/a; that is TestScopeDodges's.
	if host == "docker.io" && len(parts) == 1 {
		parts = append([]string{"library"}, parts...)
	}
	return host + "/" + strings.Join(parts, "/")
}

var someDigests = []string{"@sha256:" + strings.Repeat("a", 64), "@sha256:" + strings.Repeat("b", 64)}

func (n names) reference() string {
	return n.repository() + n.one(":v1", ":latest", ":v1-b", someDigests[0], someDigests[1])
}

// scope makes one that may be above a reference.
func (n names) scope(reference string) string {
	host, _, _ := strings.Cut(reference, "/")
	bare, _, _ := strings.Cut(host, ":")
	switch n.IntN(8) {
	case 0:
		return reference
	case 1:
		return n.reference()
	case 2:
		if _, above, ok := strings.Cut(bare, "."); ok {
			return "*." + above
		}
		return host
	case 3:
		return n.one("*.io", "*.com", "*.example.com", "*.a.example.com", "*.0.1")
	case 4:
		return n.one("", host, n.host())
	default: // the repository or something that it is below
		repository, _, _ := strings.Cut(reference, "@")
		if at := strings.LastIndexByte(repository, ':'); at > strings.LastIndexByte(repository, '/') {
			repository = repository[:at]
		}
		parts := strings.Split(repository, "/")
		return strings.Join(parts[:1+n.IntN(len(parts))], "/")
	}
}

// A policy's scopes are chosen as the library does it for references that have
// either a tag or a digest, by its own transport's names.
func TestScopesAsTheLibrary(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	chosen := map[string]int{}
	for seed := range uint64(300) {
		n := names{rand.New(rand.NewPCG(seed, 5))} // the same names in each run
		var written, scopes []string
		for range 8 {
			written = append(written, n.reference())
		}
		for range 12 {
			scopes = append(scopes, n.scope(n.one(written...)))
		}
		slices.Sort(scopes)
		scopes = slices.Compact(scopes)
		scoped := lists{}
		for _, scope := range scopes {
			scoped[scope] = []requirement{rejectAll}
		}
		rules := s.rules(t, terms{policy: policyText(t, []requirement{rejectAll}, scoped)})
		for _, w := range written {
			want, got := byLibrary(t, scopes, w), bySelection(t, rules, w)
			if want == "" {
				want = "docker" // the transport's default, as messages call it
			}
			if got != want {
				t.Errorf("%s is judged by %q, want %q of %q", w, got, want, scopes)
			}
			chosen[sort(want, w)]++
		}
	}
	// Otherwise agreeing would say little.
	for _, sort := range []string{"tag", "digest", "repository", "above", "host", "domain", "docker", "default"} {
		if chosen[sort] < 20 {
			t.Errorf("%d images of %v are judged by a scope of the sort %q, want more", chosen[sort], chosen, sort)
		}
	}
}

// sort says what sort of scope was chosen for a reference.
func sort(scope, reference string) string {
	switch {
	case scope == "docker" || scope == "default":
		return scope
	case strings.HasPrefix(scope, "*."):
		return "domain"
	case scope == reference && strings.Contains(scope, "@"):
		return "digest"
	case scope == reference:
		return "tag"
	case !strings.Contains(scope, "/"):
		return "host"
	case strings.HasPrefix(reference, scope+"/"):
		return "above"
	default:
		return "repository"
	}
}

// Raw requirements are what the engine compiles: the tests' are valid ones.
func TestRequirementsAreValid(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, k := range w.kinds(t) {
		for _, as := range identities {
			raw, err := json.Marshal(map[string]any{"default": []requirement{
				k.written.identified(as.written(w.subjects[gpg][0].current)),
			}})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := signature.NewPolicyFromBytes(raw); err != nil {
				t.Errorf("%s, %s: %v\n%s", k.name, as.name, err, raw)
			}
		}
	}
}
