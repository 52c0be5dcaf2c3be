// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cases_test

import (
	"context"
	"testing"

	"github.com/pratique-dev/pratique/e2e/env"
)

// beside starts a server with other flags, for rooms with its label, and ends
// it with the case.
func (w *world) beside(t *testing.T, o env.ServerOptions) *env.Server {
	t.Helper()
	s, err := w.Beside(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.End(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// TestAudit: an ImageConfig in Audit denies nothing and pins nothing, and says
// what it would have done.
func TestAudit(t *testing.T) {
	t.Parallel()
	r := newRoom(t)
	r.policy(t, "", keyed(r.prefix(), r.key, "  mode: Audit"))
	signed, unsigned, missing := r.signed(t, "signed:v1"), r.unsigned(t, "unsigned:v1"), r.prefix()+"missing:v1"
	r.create(t.Context(), pod("signed", signed.ByTag())).admitted(t, signed.ByTag())
	r.create(t.Context(), pod("unsigned", unsigned.ByTag())).warned(t, []string{unsigned.ByTag()},
		"spec.containers[0].image: "+unsigned.ByTag()+"@"+unsigned.Digest[:len("sha256:")+12]+"…", "Rejected by ImageConfig", "no signature")
	r.create(t.Context(), pod("missing", missing)).warned(t, []string{missing}, "Inconclusive by ImageConfig", "404")
	// Each rule weighs in its own mode.
	r.policy(t, "-enforced", keyed(r.prefix(), r.other))
	got := r.try(t.Context(), pod("both", signed.ByTag()))
	got.refused(t, rejected, "Rejected by ImageConfig \""+r.namespace+"-enforced\"", "no signature matches its key")
	r.change(t, r.namespace+"-enforced", keyed(r.prefix(), r.key))
	r.awaitReady(t, r.namespace+"-enforced", "True", "Compiled")
	r.try(t.Context(), pod("both", signed.ByTag())).admitted(t, signed.ByBoth())
}

// TestServerModes: what holds for all rules, by flags of the server.
func TestServerModes(t *testing.T) {
	t.Parallel()
	prepare := func(t *testing.T, server string) (r *room) {
		r = newRoom(t, env.OtherServer+"="+server)
		r.policy(t, "", keyed(r.prefix()+"covered/", r.key))
		return r
	}
	t.Run("--mode=Audit", func(t *testing.T) {
		t.Parallel()
		r := prepare(t, "audit")
		r.beside(t, env.ServerOptions{Name: "audit", Args: []string{"--mode=Audit", "--unmatched=Deny"}})
		signed, unsigned := r.signed(t, "covered/signed:v1"), r.unsigned(t, "covered/unsigned:v1")
		r.try(t.Context(), pod("signed", signed.ByTag())).admitted(t, signed.ByTag())
		r.try(t.Context(), pod("unsigned", unsigned.ByTag())).warned(t, []string{unsigned.ByTag()}, "Rejected by ImageConfig", "no signature")
		r.try(t.Context(), pod("nobody", r.prefix()+"other:v1")).warned(t, []string{r.prefix() + "other:v1"}, "Rejected: no rule covers it")
		r.try(t.Context(), pod("invalid", "a.io//b")).warned(t, []string{"a.io//b"}, "Rejected: invalid image reference")
	})
	t.Run("--unmatched=Deny --pin=Never", func(t *testing.T) {
		t.Parallel()
		r := prepare(t, "strict")
		r.beside(t, env.ServerOptions{Name: "strict", Args: []string{"--unmatched=Deny", "--pin=Never"}})
		signed, uncovered := r.signed(t, "covered/signed:v1"), r.unsigned(t, "other:v1")
		r.try(t.Context(), pod("nobody", uncovered.ByTag())).refused(t, rejected, "no rule covers it", "--unmatched=Deny")
		r.try(t.Context(), pod("nobody", uncovered.ByBoth())).refused(t, rejected, "no rule covers it")
		r.try(t.Context(), pod("tag", signed.ByTag())).refused(t, rejected, "not pinned", "--pin=Never")
		r.try(t.Context(), pod("digest", signed.ByBoth())).admitted(t, signed.ByBoth())
	})
	t.Run("--unmatched=Warn --pin=All", func(t *testing.T) {
		t.Parallel()
		r := prepare(t, "eager")
		r.beside(t, env.ServerOptions{Name: "eager", Args: []string{"--unmatched=Warn", "--pin=All"}})
		signed, uncovered := r.signed(t, "covered/signed:v1"), r.unsigned(t, "other:v1")
		r.try(t.Context(), pod("covered", signed.ByTag())).admitted(t, signed.ByBoth())
		r.try(t.Context(), pod("nobody", uncovered.ByTag())).warned(t, []string{uncovered.ByBoth()}, "no rule covers it")
		// Its registry may be down: it is nobody's business.
		r.try(t.Context(), pod("away", r.prefix()+"missing:v1")).warned(t, []string{r.prefix() + "missing:v1"}, "not pinned", "404")
	})
	t.Run("the default", func(t *testing.T) {
		t.Parallel()
		r := newRoom(t)
		uncovered := r.unsigned(t, "other:v1")
		r.silent(t, func() { r.try(t.Context(), pod("nobody", uncovered.ByTag())).admitted(t, uncovered.ByTag()) })
	})
}
