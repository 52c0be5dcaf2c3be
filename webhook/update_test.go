// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pratique-dev/pratique/registry/registrytest"
)

// images is what the tests of this file are about.
type images struct{ signed, unsigned, later registrytest.Image }

func (s *stack) images(tb testing.TB) images {
	tb.Helper()
	made := images{s.host.PushImage(tb, "acme/signed:v1"), s.host.PushImage(tb, "acme/unsigned:v1"), s.host.PushImage(tb, "acme/later:v1")}
	s.host.SignLegacy(tb, made.signed, s.key)
	s.host.SignBundle(tb, made.later, s.key)
	return made
}

// What is not changed is not examined: not one request, whatever it is.
func TestUnchanged(t *testing.T) {
	t.Parallel()
	s := newStack(t, setting{})
	i := s.images(t)
	old := fmt.Sprintf(`{"metadata":{"name":"x"},"spec":{"containers":[{"name":"a","image":%q},{"name":"b","image":"BAD"}],`+
		`"initContainers":[{"name":"i","image":%q}],"volumes":[{"name":"v","image":{"reference":%q}}]}}`, i.unsigned.ByTag(), i.unsigned.ByBoth(), i.signed.ByTag())
	changed := func(before, after string) string {
		now := strings.Replace(old, before, after, 1)
		if now == old {
			t.Fatalf("no %q in %s", before, old)
		}
		return now
	}
	for name, object := range map[string]string{
		"nothing":     old,
		"a label":     changed(`"name":"x"`, `"name":"x","labels":{"a":"b"}`),
		"other order": changed(fmt.Sprintf(`{"name":"a","image":%q},{"name":"b","image":"BAD"}`, i.unsigned.ByTag()), fmt.Sprintf(`{"name":"b","image":"BAD"},{"name":"a","image":%q}`, i.unsigned.ByTag())),
		"one removed": changed(`,{"name":"b","image":"BAD"}`, ``),
		"deletion":    changed(`"name":"x"`, `"name":"x","deletionTimestamp":"2026-01-01T00:00:00Z","finalizers":["a/b"]`),
	} {
		for _, sub := range []string{"", "ephemeralcontainers"} {
			stored, got := s.admit(t, ask{object: object, old: old, subresource: sub})
			if stored != object || !got.Allowed || len(got.Warnings) > 0 {
				t.Errorf("%s: stored %s, %s", name, stored, message(got))
			}
		}
	}
	if requests := s.host.Requests(); len(requests) > 0 {
		t.Errorf("%d requests, the first %s", len(requests), requests[0])
	}
}

// TestChanged: every way to bring an unsigned image into a Pod that is there.
func TestUpdated(t *testing.T) {
	t.Parallel()
	s := newStack(t, setting{})
	i := s.images(t)
	spec := func(containers, more string) string {
		return fmt.Sprintf(`{"metadata":{"name":"x"},"spec":{"containers":[%s]%s}}`, containers, more)
	}
	c := func(name, image string) string { return fmt.Sprintf(`{"name":%q,"image":%q}`, name, image) }
	good, bad := i.signed.ByBoth(), i.unsigned.ByTag()
	old := spec(c("a", good)+","+c("b", bad), `,"initContainers":[`+c("i", good)+`]`)
	for name, object := range map[string]string{
		"image":               spec(c("a", bad)+","+c("b", bad), `,"initContainers":[`+c("i", good)+`]`),
		"one more":            spec(c("a", good)+","+c("b", bad)+","+c("c", bad), ""),
		"renamed":             spec(c("a", good)+","+c("c", bad), ""),
		"same name twice":     spec(c("a", good)+","+c("b", bad)+","+c("b", bad), ""),
		"another list":        spec(c("a", good), `,"initContainers":[`+c("b", bad)+`]`),
		"ephemeral":           spec(c("a", good)+","+c("b", bad), `,"ephemeralContainers":[`+c("debug", bad)+`]`),
		"ephemeral, old name": spec(c("a", good)+","+c("b", bad), `,"ephemeralContainers":[`+c("b", bad)+`]`),
		"image volume":        spec(c("a", good)+","+c("b", bad), `,"volumes":[{"name":"v","image":{"reference":"`+bad+`"}}]`),
		"volume named as one": spec(c("a", good)+","+c("b", bad), `,"volumes":[{"name":"b","image":{"reference":"`+bad+`"}}]`),
		"digest removed":      spec(c("a", i.signed.Name()+":v1")+","+c("b", i.unsigned.Name()), ""),
		"while it is deleted": strings.Replace(spec(c("a", bad), ""), `"name":"x"`, `"name":"x","deletionTimestamp":"2026-01-01T00:00:00Z","finalizers":["a/b"]`, 1),
		"no reference":        spec(c("a", "BAD"), ""),
		"blank":               spec(c("a", " "), ""),
		"none":                spec(`{"name":"a"}`, ""),
		"blank volume":        spec(c("a", good), `,"volumes":[{"name":"v","image":{"reference":""}}]`),
		"trailing newline":    spec(c("a", good+"\n"), ""),
	} {
		for _, sub := range []string{"", "ephemeralcontainers"} {
			t.Run(name+"/"+sub, func(t *testing.T) {
				t.Parallel()
				if _, got := s.admit(t, ask{object: object, old: old, subresource: sub}); got.Allowed {
					t.Errorf("%s was let in", object)
				}
			})
		}
		t.Run(name+"/created", func(t *testing.T) {
			t.Parallel()
			if _, got := s.admit(t, ask{object: object}); got.Allowed {
				t.Errorf("%s was let in", object)
			}
		})
	}
	t.Run("broken old object", func(t *testing.T) {
		t.Parallel()
		for _, before := range []string{`[]`, `{"spec":{"containers":5}}`, `null`} {
			if _, got := s.admit(t, ask{operation: "UPDATE", object: spec(c("b", bad), ""), old: before}); got.Allowed {
				t.Errorf("let in beside %s", before)
			}
		}
	})
	t.Run("only what is new is pinned", func(t *testing.T) {
		t.Parallel()
		before := spec(c("a", i.later.ByTag()), "")
		object := spec(c("a", i.later.ByTag()), `,"ephemeralContainers":[`+c("debug", i.signed.ByTag())+`]`)
		want := spec(c("a", i.later.ByTag()), `,"ephemeralContainers":[`+c("debug", i.signed.ByBoth())+`]`)
		stored, got := s.admit(t, ask{object: object, old: before, subresource: "ephemeralcontainers"})
		if stored != want || !got.Allowed {
			t.Errorf("stored %s, %s", stored, message(got))
		}
	})
}

// TestNoExemption: nothing that a user can write exempts an image.
func TestNoExemption(t *testing.T) {
	t.Parallel()
	s := newStack(t, setting{})
	i := s.images(t)
	object := func(metadata string) string {
		return fmt.Sprintf(`{"metadata":{"name":"x"%s},"spec":{"containers":[{"name":"istio-proxy","image":%q}]}}`, metadata, i.unsigned.ByTag())
	}
	mirror := object(`,"annotations":{"kubernetes.io/config.mirror":"abc"}`)
	for name, a := range map[string]ask{
		"plain":                   {object: object("")},
		"mirror, by a user":       {object: mirror},
		"mirror, by a masquerade": {object: mirror, groups: []string{"system:nodes:x", "system:node", "System:Nodes", "system:masters", "system:serviceaccounts"}},
		"node, no mirror":         {object: object(""), groups: []string{"system:nodes"}},
		"mirror as a label":       {object: object(`,"labels":{"kubernetes.io/config.mirror":"abc"}`), groups: []string{"system:nodes"}},
		"owner":                   {object: object(`,"ownerReferences":[{"apiVersion":"v1","kind":"Node","name":"n","uid":"u","controller":true}]`)},
		"deletion":                {object: object(`,"deletionTimestamp":"2026-01-01T00:00:00Z"`)},
		"labels of ours":          {object: object(`,"labels":{"pratique.dev/exclude":"true","app.kubernetes.io/name":"pratique"}`)},
		"annotations of ours":     {object: object(`,"annotations":{"pratique.dev/verified":"true","pratique.dev/digest":"` + i.unsigned.Digest + `","pratique.dev/mode":"Audit"}`)},
		"namespace of ours":       {object: object(`,"namespace":"pratique-system"`), namespace: "pratique-system"},
		"namespace of kube":       {object: object(""), namespace: "kube-system"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, got := s.admit(t, a); got.Allowed || !strings.Contains(got.Result.Message, "no signature") {
				t.Errorf("got %s", message(got))
			}
		})
	}
	for _, old := range []string{"", object("")} {
		stored, got := s.admit(t, ask{object: mirror, old: old, groups: []string{"system:authenticated", "system:nodes"}})
		if stored != mirror || !got.Allowed {
			t.Errorf("a node's mirror of a static Pod: %s", message(got))
		}
	}
}

// Every place of a Pod, one at a time.
func TestEveryPlace(t *testing.T) {
	t.Parallel()
	s := newStack(t, setting{})
	i := s.images(t)
	format := map[string]string{
		"containers":          `{"spec":{"containers":[{"name":"a","image":%q}]}}`,
		"initContainers":      `{"spec":{"initContainers":[{"name":"a","image":%q}]}}`,
		"sidecar":             `{"spec":{"initContainers":[{"name":"a","restartPolicy":"Always","image":%q}]}}`,
		"ephemeralContainers": `{"spec":{"ephemeralContainers":[{"name":"a","image":%q}]}}`,
		"image volume":        `{"spec":{"volumes":[{"name":"a","image":{"pullPolicy":"Always","reference":%q}}]}}`,
		"escaped names":       `{"sp\u0065c":{"cont\u0061iners":[{"im\u0061ge":%q}]}}`,
	}
	for name, format := range format {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stored, got := s.admit(t, ask{object: fmt.Sprintf(format, i.signed.ByTag())})
			if !got.Allowed || !strings.Contains(stored, i.signed.ByBoth()) {
				t.Errorf("signed: stored %s, %s", stored, message(got))
			}
			if _, got := s.admit(t, ask{object: fmt.Sprintf(format, i.unsigned.ByTag())}); got.Allowed {
				t.Error("unsigned: let in")
			}
			if got := s.send(t, "/validate", ask{object: fmt.Sprintf(format, i.unsigned.ByDigest())}); got.Allowed {
				t.Error("unsigned, by digest: let in")
			}
		})
	}
}
