// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cases_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pratique-dev/pratique/e2e/signer"
)

// testsPredicate is a type of attestations that is nobody's but the cases'.
const testsPredicate = "https://acme.example/tests/v1"

// written is a policy in one of the languages.
type written struct {
	kind, text string
	// refusal is what is said of an attestation with a failed test.
	refusal string
}

// policies ask in each language that no test failed.
func policies() map[string]written {
	return map[string]written{
		"CUE":  {"cue", "predicate: {failed!: 0, runner!: =~\"^https://ci[.]acme[.]example/\"}\n", "predicate.failed: conflicting values 3 and 0"},
		"Rego": {"rego", "package sigstore\n\nisCompliant {\n  input.predicate.failed == 0\n  startswith(input.predicate.runner, \"https://ci.acme.example/\")\n}\n", "isCompliant has no value for this document"},
		"CEL":  {"cel", "predicate.failed == 0 &&\n  predicate.runner.startsWith('https://ci.acme.example/')", "the expression is false"},
	}
}

func (p written) inline() string { return fmt.Sprintf("{type: %s, data: %q}", p.kind, p.text) }

func (p written) inConfigMap(name string) string {
	return fmt.Sprintf("{type: %s, configMapRef: {name: %s, key: policy}}", p.kind, name)
}

// attest has the robot, or the owner of the key, say how many tests failed.
func (w way) attestTests(t *testing.T, image published, key signer.Key, failed int) {
	t.Helper()
	o := signer.Options{Log: w.log, Timestamp: w.timestamp, Attestation: signer.Attestation{
		Type: testsPredicate, Predicate: fmt.Appendf(nil, `{"failed": %d, "runner": "https://ci.acme.example/7"}`, failed),
	}}
	if w.keyless {
		o.IdentityToken = emailToken(t, robotIssuer, robot)
	} else {
		o.Key = &key
	}
	w.signWith(t, image, o)
}

// asksTests is the authority that asks for attestTests, and for more if there is
// a policy.
func (w way) asksTests(key signer.Key, root rootRef, policy string) authority {
	a := w.asks(key, root)
	a.predicate, a.policy = testsPredicate, policy
	return a
}

// TestAttestationPolicies: an attestation has to fulfil its policy in each of
// the languages, be that inline or in a ConfigMap, whose change is in force
// within 5 s.
func TestAttestationPolicies(t *testing.T) {
	t.Parallel()
	signed := map[string]way{
		"CUE":  {keyless: true, timestamp: true, log: signer.RekorV2, bundle: true, attest: true},
		"Rego": {keyless: true, log: signer.RekorV1, attest: true},
		"CEL":  {bundle: true, attest: true},
	}
	for language, p := range policies() {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			r, key, w := newRoom(t), keyPair(t), signed[language]
			prefix := r.memory.Host + "/" + r.namespace + "/"
			root := r.root(t, "ConfigMap", string(r.sigstore.TrustedRoot))
			passed, failed := publish(t, prefix+"passed", "v1", false), publish(t, prefix+"failed", "v1", true)
			w.attestTests(t, passed, key, 0)
			w.attestTests(t, failed, key, 3)
			refusal := `attestation "wanted": does not fulfil its policy: ` + p.refusal
			judged := func(t *testing.T) {
				t.Helper()
				r.try(t.Context(), pod("passed", passed.byTag())).admitted(t, passed.pinned())
				r.try(t.Context(), pod("failed", failed.byTag())).refused(t, rejected, failed.pinned(), refusal)
			}
			config := r.policy(t, "", authorized(prefix, []authority{w.asksTests(key, root, p.inline())}))
			judged(t)
			text := r.namespace + "-policy"
			r.configMap(t, text, map[string]string{"policy": p.text})
			r.change(t, config, authorized(prefix, []authority{w.asksTests(key, root, p.inConfigMap(text))}))
			r.awaitReady(t, config, metav1.ConditionTrue, "Compiled")
			judged(t)

			// A policy that asks for less lets in what the other refused, and one that
			// does not compile lets in nobody.
			r.changeConfigMap(t, text, map[string]string{"policy": strings.NewReplacer("failed!: 0", "failed!: <=3", "failed == 0", "failed <= 3").Replace(p.text)})
			r.eventually(t, inForce, "the new policy", func(ctx context.Context) error { return r.try(ctx, pod("x", failed.byTag())).err })
			r.changeConfigMap(t, text, map[string]string{"policy": p.text + "\n )"})
			r.eventually(t, inForce, "the broken policy", func(ctx context.Context) error {
				if r.try(ctx, pod("x", passed.byTag())).err == nil {
					return errors.New("the old one is in force")
				}
				return nil
			})
			r.try(t.Context(), pod("x", passed.byTag())).refused(t, inconclusive, "it is not ready: ")
			// That its text changed is no new generation.
			var message string
			r.eventually(t, inForce, "its status", func(context.Context) error {
				message = r.awaitReady(t, config, metav1.ConditionFalse, "ConfigMapInvalid")
				return nil
			})
			place := regexp.MustCompile(fmt.Sprintf(`spec\.verification\.cosign\.authorities\[0\]\.attestations\[0\]\.policy\.configMapRef: ConfigMap %q, key "policy": line \d+, column \d+: `, text))
			if !place.MatchString(message) {
				t.Errorf("the condition lacks the place: %s", message)
			}
		})
	}
}

// TestPolicyDoesNotCompile: the ImageConfig says where its policy is wrong, and
// its images are held back.
func TestPolicyDoesNotCompile(t *testing.T) {
	t.Parallel()
	for language, test := range map[string]struct{ policy, text string }{
		"CUE":  {written{kind: "cue", text: "predicate: {\n  failed: cero\n}"}.inline(), `line 2, column 11: predicate.failed: reference "cero" not found`},
		"Rego": {written{kind: "rego", text: "package sigstore\nisCompliant { input.a = = 1 }"}.inline(), `line 2, column 25: unexpected eq token`},
		"CEL":  {written{kind: "cel", text: "true &&\n now()"}.inline(), `line 2, column 5: undeclared reference to 'now'`},
	} {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			r := newRoom(t)
			config := r.unreadyPolicy(t, "", authorized(r.prefix(), []authority{way{attest: true}.asksTests(keyPair(t), rootRef{}, test.policy)}))
			message := r.awaitReady(t, config, metav1.ConditionFalse, "Invalid")
			const field = "spec.verification.cosign.authorities[0].attestations[0].policy.data: "
			if !strings.Contains(message, field+test.text) {
				t.Errorf("the condition says: %s", message)
			}
			signed := r.signed(t, "app:v1")
			r.try(t.Context(), pod("x", signed.ByTag())).refused(t, inconclusive, "it is not ready: ", test.text)
		})
	}
}

// TestPolicyRunsAway: what does not end is ended, and said to be Inconclusive,
// well within the time that the API server waits; who asks meanwhile is
// answered.
func TestPolicyRunsAway(t *testing.T) {
	t.Parallel()
	w := way{bundle: true, attest: true}
	for language, policy := range map[string]written{
		// With the document alone: what runs away by itself does not compile.
		"CUE": {kind: "cue", text: `import "list"
predicate: failed: *1 | int
if predicate.failed == 0 {x: [for a in list.Range(0, 100000, 1) for b in list.Range(0, 100000, 1) if a*b < predicate.failed {a}]}`},
		"Rego": {kind: "rego", text: "package sigstore\nisCompliant { n := numbers.range(1, 10000); count([1 | n[_] + n[_] + n[_] == 0]) == 0 }"},
		"CEL":  {kind: "cel", text: "[1].map(z, lists.range(1000)).all(n, n.all(a, n.all(b, n.all(c, true))))"},
	} {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			r, key := newRoom(t), keyPair(t)
			prefix := r.memory.Host + "/" + r.namespace + "/"
			image := publish(t, prefix+"app", "v1", false)
			w.attestTests(t, image, key, 0)
			r.policy(t, "", authorized(prefix, []authority{w.asksTests(key, rootRef{}, policy.inline())}))
			r.policy(t, "-signed", keyed(r.prefix(), r.key))
			other := r.signed(t, "app:v1")
			began := time.Now()
			done := make(chan struct{})
			go func() {
				defer close(done)
				if err := r.try(t.Context(), pod("other", other.ByTag())).err; err != nil {
					t.Errorf("meanwhile: %v", err)
				}
			}()
			r.try(t.Context(), pod("x", image.byTag())).refused(t, inconclusive, image.pinned(),
				`authority "release": attestation "wanted": its policy could not be evaluated: `)
			t.Logf("%s after %s", language, time.Since(began))
			<-done
		})
	}
}
