// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/source"
	"github.com/pratique-dev/pratique/reference"
)

// mirror is an ImageConfig that does nothing but rewrite.
func mirror(name, from, to string) string {
	return fmt.Sprintf(`apiVersion: pratique.dev/v1alpha1
kind: ImageConfig
metadata: {name: %s}
spec:
  matchImages: [{prefix: %q}]
  rewriteImage: {prefix: %q}
`, name, from, to)
}

func TestRewrite(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		document string
		want     *policy.Rewrite
		message  string
	}{
		"a path":        {mirror("m", "docker.io/", "mirror.corp/hub/"), &policy.Rewrite{To: reference.Prefix{Text: "mirror.corp/hub/"}}, ""},
		"a host":        {mirror("m", "docker.io", "Mirror.corp:443"), &policy.Rewrite{To: reference.Prefix{Text: "mirror.corp/"}}, ""},
		"within a name": {mirror("m", "a.io/x/app", "b.io/y/app"), &policy.Rewrite{To: reference.Prefix{Text: "b.io/y/app"}}, ""},
		"to Docker Hub": {mirror("m", "a.io/", "acme/"), &policy.Rewrite{To: reference.Prefix{Text: "docker.io/acme/"}}, ""},
		"only lookups": {
			strings.Replace(mirror("m", "a.io/", "b.io/"), `"b.io/"}`, `"b.io/", target: Lookup}`, 1),
			&policy.Rewrite{To: reference.Prefix{Text: "b.io/"}, Lookup: true}, "",
		},
		"from tags":        {mirror("m", "a.io/x:v1", "b.io/x"), nil, "the prefix a.io/x:v1 reaches into the tag or digest"},
		"from a digest":    {mirror("m", "a.io/x@sha256:"+strings.Repeat("a", 64), "b.io/x"), nil, "reaches into the tag or digest"},
		"to tags":          {mirror("m", "a.io/x", "b.io/x:v"), nil, "spec.rewriteImage.prefix: an image is rewritten to another name and keeps its tag"},
		"to no host":       {mirror("m", "a.io/", "mirror"), nil, "spec.rewriteImage.prefix: no host"},
		"to no repository": {mirror("m", "a.io/", "b.io/UPPER/"), nil, `"UPPER" cannot be in a repository's name`},
		"to one or two":    {mirror("m", "a.io/x", "docker.io/ngin"), nil, `"docker.io/ngin" may mean docker.io/ngin/ or docker.io/library/ngin`},
		"run together":     {mirror("m", "a.io/acme/", "b.io/acme"), nil, "what follows a.io/acme/ would be put behind b.io/acme: end both in a slash, or neither"},
		"an empty part":    {mirror("m", "a.io/acme", "b.io/acme/"), nil, "what follows a.io/acme would be put behind b.io/acme/"},
		"joined":           {mirror("m", "a.io/acme/", "b.io/acme-"), &policy.Rewrite{To: reference.Prefix{Text: "b.io/acme-"}}, ""},
		"to itself":        {mirror("m", "a.io/", "a.io/mirror/"), nil, `what it rewrites to, a.io/mirror/, ImageConfig "m" rewrites again`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			files := open(t, write(t, t.TempDir()+"/m.yaml", test.document))
			compiled := files.Compiled()[0]
			if diff := cmp.Diff(test.want, compiled.Rule.Rewrite); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if test.message == "" {
				if !compiled.Ready || compiled.Rule.Verification != nil {
					t.Errorf("not ready: %s; verification %+v", compiled.Message, compiled.Rule.Verification)
				}
				return
			}
			reason := "Invalid"
			if name == "to itself" {
				reason = "Conflict"
			}
			heldBack(t, compiled, reason, test.message)
		})
	}
}

// Which of several names is meant must not hang on how often somebody looks.
func TestRewriteLoops(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		rules []string
		held  []string
	}{
		"side by side":    {[]string{mirror("a", "a.io/", "m.io/a/"), mirror("b", "b.io/", "m.io/b/")}, nil},
		"in a circle":     {[]string{mirror("a", "a.io/", "b.io/"), mirror("b", "b.io/", "a.io/")}, []string{"a", "b"}},
		"one after other": {[]string{mirror("a", "a.io/", "b.io/x/"), mirror("b", "b.io/", "c.io/")}, []string{"a"}},
		"some of them":    {[]string{mirror("a", "a.io/", "b.io/"), mirror("b", "b.io/old/", "c.io/")}, []string{"a"}},
		"hosts differ":    {[]string{mirror("a", "a.io/", "b.io/"), mirror("b", "b.io.evil/", "c.io/")}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			files := open(t, write(t, t.TempDir()+"/m.yaml", strings.Join(test.rules, "---\n")))
			var held []string
			for _, c := range files.Compiled() {
				if !c.Ready {
					held = append(held, c.Rule.Name)
					heldBack(t, c, "Conflict", "rewrites again")
				}
				if c.Ready != (c.Rule.Rewrite != nil) {
					t.Errorf("%s: ready %t, rewrites %v", c.Rule.Name, c.Ready, c.Rule.Rewrite)
				}
			}
			slices.Sort(held)
			if diff := cmp.Diff(test.held, held); diff != "" {
				t.Errorf("not ready (-want +got):\n%s", diff)
			}
		})
	}
}

// heldBack checks that an ImageConfig is not ready, and that nothing that it is
// for gets by it.
func heldBack(t *testing.T, c source.Compiled, reason, message string) {
	t.Helper()
	if c.Ready || c.Reason != reason || !strings.Contains(c.Message, message) {
		t.Errorf("ready %t, reason %q, message %q; want %q, %q", c.Ready, c.Reason, c.Message, reason, message)
	}
	for _, r := range []*policy.Rule{c.Rule, c.Rewritten} {
		if r != nil && (r.Verification == nil || r.Verification.Fixed == nil || r.Verification.Fixed.Outcome != policy.Inconclusive) {
			t.Errorf("%v is not held back: %+v", r.Prefixes, r.Verification)
		}
	}
}

// What an ImageConfig verifies and rewrites, it verifies under the new name: by
// the old one nothing would ever be judged. It takes no other's place there.
func TestRewriteVerifies(t *testing.T) {
	t.Parallel()
	both := strings.Replace(mirror("both", "a.io/", "m.io/a/"), "spec:\n", `spec:
  verification: {provider: Cosign, cosign: {authorities: [{name: none, static: {action: fail}}]}}
`, 1)
	verified := func(files *source.Files, image string) []string {
		ref, err := reference.Parse(image)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, r := range files.Set().Select(ref, policy.Namespace{Name: "shop"}).Verification {
			names = append(names, r.Name)
		}
		return names
	}
	files := open(t, write(t, t.TempDir()+"/m.yaml", both+"---\n"+config("mirrored", "m.io")))
	for image, want := range map[string][]string{
		"m.io/a/x": {"both", "mirrored"}, "m.io/b/x": {"mirrored"}, "a.io/x": {"both"},
	} {
		if diff := cmp.Diff(want, verified(files, image)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", image, diff)
		}
	}
	// One that is not ready holds back what it would have verified.
	files = open(t, write(t, t.TempDir()+"/m.yaml", strings.Replace(both, "static: {action: fail}", "key: {data: x}", 1)))
	if diff := cmp.Diff([]string{"both"}, verified(files, "m.io/a/x")); diff != "" {
		t.Errorf("not ready (-want +got):\n%s", diff)
	}
	heldBack(t, files.Compiled()[0], "Invalid", "key.data")
}
