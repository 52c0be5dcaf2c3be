// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package containers

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/registry"
)

// A message that inflates without end, or has signatures without end, is not
// given to the library; a good one beside it counts.
func TestBombs(t *testing.T) {
	t.Parallel()
	g := newGPG(asEd25519, time.Hour, 0)
	digest := newShelf().image(1)
	good := g.sign(digest, name)
	small := bomb(maxInflated / 2)
	large := bomb(64 << 20)
	if len(large) > 1<<20 {
		t.Fatalf("the bomb has %d bytes", len(large))
	}
	last := len(good) - 1 // where the signature packet of a message begins, which is its last
	for good[last] != 0xc2 || int(good[last+1]) != len(good)-last-2 {
		last--
	}
	for title, row := range map[string]struct {
		signature  []byte
		byRegistry bool
		reason     policy.Reason
		says       string
	}{
		"small enough": {small, false, policy.ReasonNoMatch, "not accepted"},
		"bomb":         {large, false, policy.ReasonLimit, "inflates to more than 1048576 bytes"},
		"by registry":  {large, true, policy.ReasonLimit, "inflates"},
		"with a name":  {append([]byte(simplePrefix), large...), false, policy.ReasonLimit, "inflates"},
		"after a body": {append(bytes.Clone(good), large...), false, policy.ReasonVerified, ""},
		"signed twice": {append(bytes.Clone(good), good[last:]...), false, policy.ReasonNoMatch, ""}, // so it is to the library
		"many times":   {append(bytes.Clone(good), bytes.Repeat(good[last:], 64)...), false, policy.ReasonLimit, "more than 15 parts"},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			s := newShelf()
			s.image(1)
			s.simple[digest] = []registry.SimpleSignature{{Untrusted: row.signature, ByRegistry: row.byRegistry}}
			v := verifier(t, s, byGPG(g.public()))
			got := v.Verify(t.Context(), byTag(digest))
			if got.Reason != row.reason || !strings.Contains(got.Message, row.says) {
				t.Errorf("verdict = %s %s: %s, want %s: …%s…", got.Outcome, got.Reason, got.Message, row.reason, row.says)
			}
			s.sign(digest, good)
			expect(t, v.Verify(t.Context(), byTag(digest)), policy.Accepted, policy.ReasonVerified, "")
		})
	}
}

// FuzzScreen: whatever a message is, it is read to its end or to a bound.
func FuzzScreen(f *testing.F) {
	f.Add(newGPG(asEd25519, time.Hour, 0).sign(digestOf(nil), name))
	f.Add(bomb(1 << 20))
	f.Fuzz(func(t *testing.T, untrusted []byte) {
		err := screen(untrusted)
		if err != nil && policy.VerdictOf(err).Reason != policy.ReasonLimit {
			t.Errorf("error = %v", err)
		}
	})
}

// Nothing stays on the disk, and no more than is to be is there.
func TestDisk(t *testing.T) { // alone: where temporary files are is the process's
	folder := t.TempDir()
	t.Setenv("TMPDIR", folder)
	left := func() []string { return must(filepath.Glob(filepath.Join(folder, "*"))) }
	g, key := newGPG(asEd25519, time.Hour, 0), newECDSA()
	s := newShelf()
	digest := s.image(1)
	s.sign(digest, g.sign(digest, name))
	s.attached[digest] = []registry.Signature{attach(key, digest, name)}
	v := verifier(t, s, byGPG(g.public()), bySigstore(publicPEM(key.Public())))
	expect(t, v.Verify(t.Context(), byTag(digest)), policy.Accepted, policy.ReasonVerified, "")

	for _, of := range []string{"manifest", "simple", "attached"} {
		s.panics[of+" "+digest] = true
		got := v.Verify(t.Context(), byTag(digest))
		if of == "manifest" {
			expect(t, got, policy.Inconclusive, policy.ReasonInternal, "failed unexpectedly")
			if !strings.Contains(got.Trace, "a panic of manifest") {
				t.Errorf("trace = %q", got.Trace)
			}
		} else { // what was read before is enough
			expect(t, got, policy.Accepted, policy.ReasonVerified, "")
		}
		delete(s.panics, of+" "+digest)
	}
	s.simple[digest] = nil
	s.panics["simple "+digest] = true
	expect(t, v.Verify(t.Context(), byTag(digest)), policy.Inconclusive, policy.ReasonInternal, "failed unexpectedly")
	s.panics = nil
	s.sign(digest, []byte("<html>"))
	expect(t, v.Verify(t.Context(), byTag(digest)), policy.Inconclusive, policy.ReasonUnexpected, "")
	if diff := cmp.Diff([]string(nil), left()); diff != "" {
		t.Errorf("left on the disk: %s", diff)
	}
	if v.room.total != 0 || len(v.room.hosts) != 0 {
		t.Errorf("room taken: %d of %v", v.room.total, v.room.hosts)
	}

	// The library panics over what it is given: of a list that holds nothing.
	v.list[0] = nil
	expect(t, v.Verify(t.Context(), byTag(digest)), policy.Inconclusive, policy.ReasonUnexpected, "")
	s.simple[digest] = nil
	s.sign(digest, g.sign(digest, name))
	expect(t, v.Verify(t.Context(), byTag(digest)), policy.Inconclusive, policy.ReasonInternal, "failed unexpectedly")
	if diff := cmp.Diff([]string(nil), left()); diff != "" || v.room.total != 0 {
		t.Errorf("left on the disk after a panic: %s, room taken: %d", diff, v.room.total)
	}

	must(0, os.Remove(folder))
	expect(t, v.Verify(t.Context(), byTag(digest)), policy.Inconclusive, policy.ReasonInternal, "to be judged: no such file or directory; where the root file system is read-only, mount an emptyDir there")
}

// What is judged at once has bounds; nobody takes all of the room.
func TestRoom(t *testing.T) {
	t.Parallel()
	g := newGPG(asEd25519, time.Hour, 0)
	s := newShelf()
	digest, large := s.image(1), s.image(2)
	s.sign(digest, g.sign(digest, name))
	tooLarge := bytes.Repeat([]byte{0xc2}, maxSignatures)
	s.sign(large, g.sign(large, name), tooLarge)
	v := verifier(t, s, byGPG(g.public()))
	v.room = newRoom(maxDisk, maxHost)
	// Of too many, those that are read still count.
	expect(t, v.Verify(t.Context(), byTag(large)), policy.Accepted, policy.ReasonVerified, "")
	s.simple[large] = s.simple[large][1:]
	s.sign(large, tooLarge)
	expect(t, v.Verify(t.Context(), byTag(large)), policy.Inconclusive, policy.ReasonLimit, "larger than 1048576 bytes")
	if v.room.total != 0 || len(v.room.hosts) != 0 || len(v.room.judged) != 0 {
		t.Errorf("room taken: %+v", v.room)
	}

	// One host's is another's neither for signatures nor for manifests.
	over, end := context.WithCancel(t.Context())
	end()
	take := func(r *room, host string, n int64) bool { return r.take(over, host, n) == nil }
	v.room = newRoom(2*maxHost, maxHost)
	if !take(v.room, "example.com", maxHost-block) || take(v.room, "example.com", block+1) || !take(v.room, "b.example.com", 1) {
		t.Error("room of one host")
	}
	// There is room for the signature, and none for its manifest.
	late, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if got := v.Verify(late, byTag(digest)); got.Outcome != policy.Inconclusive || !strings.Contains(got.Message, "no room for more of example.com") {
		t.Errorf("verdict = %+v", got)
	}
	other := imageOf("c.example.com/acme/app:v1", digest)
	expect(t, v.Verify(t.Context(), other), policy.Rejected, policy.ReasonNoMatch, "")

	// Who waits goes on when some is given back.
	done := make(chan policy.Verdict, 1)
	go func() { done <- v.Verify(t.Context(), byTag(digest)) }()
	v.room.give("example.com", maxHost-block)
	expect(t, <-done, policy.Accepted, policy.ReasonVerified, "")
	if v.room.total != 1 {
		t.Errorf("room taken: %d", v.room.total)
	}
	if full := newRoom(10, 8); !take(full, "a", 8) || take(full, "b", 3) || !take(full, "b", 2) {
		t.Error("room of all hosts")
	}
}

// Of one registry few manifests are judged at a time: the library cannot be
// interrupted.
func TestTurns(t *testing.T) {
	t.Parallel()
	over, end := context.WithCancel(t.Context())
	end()
	r := newRoom(maxDisk, maxHost)
	var back func()
	for range maxJudged {
		var err error
		if back, err = r.judge(over, "a"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.judge(over, "a"); err == nil {
		t.Error("one more")
	}
	if _, err := r.judge(over, "b"); err != nil {
		t.Error("another host:", err)
	}
	back()
	if _, err := r.judge(over, "a"); err != nil {
		t.Error("after one was given back:", err)
	}
}

// Certificates that are dear to verify are not verified by: nobody has vouched for
// their keys.
func TestDearCertificates(t *testing.T) {
	t.Parallel()
	small, large := certificateOf(t, 2048), certificateOf(t, maxRSABits+1)
	for title, c := range map[string]struct {
		certificate, chain string
		refused            bool
	}{
		"none":                  {},
		"one":                   {small, "", false},
		"a chain":               {small, strings.Repeat(small, maxCertificates-1), false},
		"no certificate":        {"x", "y", false},
		"a dear one":            {large, "", true},
		"a dear one in it":      {small, small + large, true},
		"a long chain":          {small, strings.Repeat(small, maxCertificates), true},
		"what is never read":    {strings.Repeat("x", maxPEM+1), "", true},
		"nor that in the chain": {small, strings.Repeat("x", maxPEM), true},
	} {
		err := screenCertificates(map[string]string{certificateAnnotation: c.certificate, chainAnnotation: c.chain})
		if (err != nil) != c.refused {
			t.Errorf("%s: %v", title, err)
		}
	}
}

// certificateOf has an RSA key of so many bits, that nobody has the other half of.
func certificateOf(t *testing.T, bits uint) string {
	t.Helper()
	signer := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	n := new(big.Int).Lsh(big.NewInt(1), bits-1)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der := must(x509.CreateCertificate(rand.Reader, template, template, &rsa.PublicKey{N: n.Add(n, big.NewInt(1)), E: 65537}, signer))
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}
