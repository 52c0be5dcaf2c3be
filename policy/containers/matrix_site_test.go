// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package containers_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"strings"
	"testing"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/containers"
	"github.com/pratique-dev/pratique/policy/containers/config"
	"github.com/pratique-dev/pratique/policy/containers/containerstest"
	"github.com/pratique-dev/pratique/reference"
	"github.com/pratique-dev/pratique/registry"
	"github.com/pratique-dev/pratique/registry/credential"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// site is a registry with a lookaside server beside it, and who asks them: the
// real client over the real network.
type site struct {
	registry  *registrytest.Registry
	lookaside *registrytest.Lookaside
	client    *registry.Client
	// files are those that policies may name.
	files files
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{registry: registrytest.New(t), lookaside: registrytest.NewLookaside(t), files: files{}}
	client, err := registry.New(registry.Options{
		AllowCIDRs: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Insecure: []string{s.registry.Host()},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.client = client
	return s
}

// files are those of a file system, by their whole names. It must not be
// written to once a policy may read it.
type files map[string][]byte

func (f files) read(name string) ([]byte, error) {
	content, ok := f[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return content, nil
}

// with is the same files and another one.
func (f files) with(name string, content []byte) files {
	other := maps.Clone(f)
	other[name] = content
	return other
}

// requirement is one of a policy's, before it is JSON.
type requirement map[string]any

var (
	acceptAnything = requirement{"type": "insecureAcceptAnything"}
	rejectAll      = requirement{"type": "reject"}
)

// signedBy asks for a simple signature by keys as keyData has them.
func signedBy(keys []byte, identity requirement) requirement {
	return requirement{"type": "signedBy", "keyType": "GPGKeys", "keyData": keys}.identified(identity)
}

// sigstoreSigned asks for an attachment by a key as keyData has it.
func sigstoreSigned(key []byte, identity requirement) requirement {
	return requirement{"type": "sigstoreSigned", "keyData": key}.identified(identity)
}

// identified is the same requirement with a signedIdentity; nil for none.
func (r requirement) identified(identity requirement) requirement {
	return r.with("signedIdentity", identity)
}

// with is the same requirement with another field; nil leaves it out.
func (r requirement) with(name string, value any) requirement {
	other := maps.Clone(r)
	if m, ok := value.(requirement); value == nil || ok && m == nil {
		delete(other, name)
		return other
	}
	other[name] = value
	return other
}

// lists are a policy's scopes of the transport docker.
type lists map[string][]requirement

// policyText is a policy.json.
func policyText(t *testing.T, byDefault []requirement, scopes lists) string {
	t.Helper()
	text, err := json.MarshalIndent(map[string]any{
		"default": byDefault, "transports": map[string]any{"docker": scopes},
	}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// everywhere is a file of registries.d that has signatures of both sorts looked
// for, whatever the registry.
func (s *site) everywhere() string {
	return fmt.Sprintf("default-docker:\n  lookaside: %s\n  use-sigstore-attachments: true\n", s.lookaside.URL())
}

func registriesOf(t *testing.T, text string) *config.Registries {
	t.Helper()
	parsed, problems := config.ParseRegistries([]config.File{{Name: "registries.d/test.yaml", Content: []byte(text)}})
	for _, p := range problems {
		if !p.Warning {
			t.Errorf("registries.d: %v\n%s", p, text)
		}
	}
	if parsed == nil {
		t.Fatal("registries.d: nothing came of it")
	}
	return parsed
}

// terms are what rules are made of.
type terms struct {
	policy     string
	registries string // a file of registries.d; looked for everywhere if empty
	files      files  // the site's if nil
	// problems says that some keys cannot be read, which is otherwise an error.
	problems bool
}

// rules makes them as the server does.
func (s *site) rules(t *testing.T, with terms) []*policy.Rule {
	t.Helper()
	if with.registries == "" {
		with.registries = s.everywhere()
	}
	if with.files == nil {
		with.files = s.files
	}
	parsed, problems := config.ParsePolicy(config.File{Name: "policy.json", Content: []byte(with.policy)})
	if parsed == nil {
		t.Fatalf("policy.json is refused: %v\n%s", problems, with.policy)
	}
	rules, found := containers.Rules(containers.Options{
		Source: s.client, Registries: registriesOf(t, with.registries),
	}, parsed, with.files.read)
	if (len(found) > 0) != with.problems {
		t.Errorf("problems = %v", found)
	}
	return rules
}

// images reads references.
func images(t *testing.T, written ...string) []policy.Asked {
	t.Helper()
	asked := make([]policy.Asked, 0, len(written))
	for _, w := range written {
		ref, err := reference.Parse(w)
		if err != nil {
			t.Fatal(err)
		}
		asked = append(asked, policy.Asked{Reference: ref})
	}
	return asked
}

// question is about references, in a Pod that is not pinned yet.
func question(t *testing.T, rules []*policy.Rule, written ...string) policy.Question {
	t.Helper()
	return policy.Question{
		Set: policy.NewSet(rules), Credentials: credential.None(), Images: images(t, written...), Pods: true,
	}
}

func (s *site) decider() *policy.Decider {
	return &policy.Decider{
		Server:   policy.Server{Mode: policy.Enforce, Pin: policy.PinMatched, Unmatched: policy.UnmatchedAllow},
		Resolver: s.client, Engine: policy.Direct{},
	}
}

func (s *site) decide(t *testing.T, rules []*policy.Rule, written string) policy.Decision {
	t.Helper()
	return s.decider().Decide(t.Context(), question(t, rules, written))[0]
}

// judge decides about one image by a list of requirements for its repository.
// All other images are rejected.
func (s *site) judge(t *testing.T, written string, list ...requirement) policy.Decision {
	t.Helper()
	repository := images(t, written)[0].Reference.Repository()
	return s.decide(t, s.rules(t, terms{policy: policyText(t, []requirement{rejectAll}, lists{repository: list})}), written)
}

// want is an expected decision: its weightiest verdict.
type want struct {
	outcome policy.Outcome
	reason  policy.Reason // any if empty
	says    string        // part of its message
}

var (
	accepted = want{policy.Accepted, policy.ReasonVerified, ""}
	unsigned = want{policy.Rejected, policy.ReasonNoSignature, "no signature"}
)

// otherName is that the signature is good, but not for the name by which the
// image is judged.
var otherName = noMatch("and the image is judged as ")

// noMatch is that there are signatures, and none that is accepted.
func noMatch(says string) want { return want{policy.Rejected, policy.ReasonNoMatch, says} }

func (w want) check(t *testing.T, got policy.Decision) {
	t.Helper()
	if len(got.Findings) == 0 {
		t.Errorf("%s: no findings, want %s", got.Reference, w.outcome)
		return
	}
	worst := got.Findings[0].Verdict
	for _, f := range got.Findings {
		if f.Verdict.Outcome.Outweighs(worst.Outcome) {
			worst = f.Verdict
		}
		checkMessage(t, f.Verdict)
	}
	if worst.Outcome != w.outcome || w.reason != "" && worst.Reason != w.reason || !strings.Contains(worst.Message, w.says) {
		t.Errorf("%s: verdict = %s %s: %s; want %s %s: …%s…",
			got.Reference, worst.Outcome, worst.Reason, worst.Message, w.outcome, w.reason, w.says)
	}
}

// checkMessage checks what holds for every message: it is one line for people.
func checkMessage(t *testing.T, v policy.Verdict) {
	t.Helper()
	if strings.ContainsFunc(v.Message, func(r rune) bool { return r < ' ' || r == 0x7f }) || len(v.Message) > 4<<10 {
		t.Errorf("message = %q, want one short line", v.Message)
	}
	if v.Message == "" && v.Outcome != policy.Accepted && v.Outcome != policy.Skipped {
		t.Errorf("%s %s without a message", v.Outcome, v.Reason)
	}
}

// simple signs an image under a reference and puts the signature where it is
// looked for.
func (s *site) simple(t *testing.T, image registrytest.Image, by *containerstest.GPG, reference string) {
	t.Helper()
	s.lookaside.Put(image.Repository, image.Digest, by.Sign(t, containerstest.Of(image, reference)))
}
