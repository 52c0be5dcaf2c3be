// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cases_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pratique-dev/pratique/e2e/env"
	"github.com/pratique-dev/pratique/e2e/signer"
	"github.com/pratique-dev/pratique/e2e/sigstore"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// publicSigstore is where the trust root of the public Sigstore is.
const publicSigstore = "tuf-repo-cdn.sigstore.dev"

// imageConfig is a manifest.
func imageConfig(name, spec string) string {
	return fmt.Sprintf("---\napiVersion: pratique.dev/v1alpha1\nkind: ImageConfig\nmetadata: {name: %s}\nspec:%s", name, spec)
}

// configMapManifest is one in Pratique's namespace.
func configMapManifest(name, key, content string) string {
	return fmt.Sprintf("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s, namespace: %s}\ndata: {%s: %q}\n", name, env.Namespace, key, content)
}

// TestNobodyIsDialled: rules with keys, and rules that name their trust root,
// ask nobody but the registry. The repository of the public Sigstore is asked
// once a rule needs it, and until it answers its images are Inconclusive; the
// others are judged as before.
func TestNobodyIsDialled(t *testing.T) {
	t.Parallel()
	below := shared.memory.Host + "/dialled/"
	key := keyPair(t)
	byKey, byRoot := way{bundle: true}, way{keyless: true, timestamp: true, bundle: true, attest: true}
	keyed, rooted := publish(t, below+"keyed", "v1", false), publish(t, below+"rooted", "v1", false)
	byKey.sign(t, keyed, key)
	byRoot.sign(t, rooted, key)
	j := newJudge(t, "dialled", map[string]string{
		"root.yaml": configMapManifest("root", rootKey, string(shared.sigstore.TrustedRoot)),
		"rules.yaml": imageConfig("keyed", authorized(below+"keyed", []authority{byKey.asks(key, rootRef{})})) +
			imageConfig("rooted", authorized(below+"rooted", []authority{byRoot.asks(key, rootRef{"ConfigMap", "root"})})),
	})
	accepted := func() {
		t.Helper()
		j.judges(t, "anywhere", keyed, "")
		j.judges(t, "anywhere", rooted, "")
	}
	accepted()
	j.dialledNobody(t)
	j.write(t, "public.yaml", imageConfig("public", authorized(below+"public", []authority{{subject: robot, issuer: robotIssuer}})))
	shared.eventually(t, 2*inForce, "the repository is asked", func(context.Context) error {
		if len(j.proxy.Targets()) == 0 {
			return errors.New("nobody is")
		}
		return nil
	})
	for _, target := range j.proxy.Targets() {
		if target != "CONNECT "+publicSigstore+":443" {
			t.Errorf("dialled %s", target)
		}
	}
	if got := j.ask(t, "anywhere", below+"public@"+keyed.digest); got.Allowed || got.Result.Code != inconclusive {
		t.Errorf("without a trust root: %+v", got)
	}
	accepted()
}

// TestTrustedRootFileRotates: another content of --trusted-root is in force
// within 5 s, and one that is no trust root leaves the last good one in force.
func TestTrustedRootFileRotates(t *testing.T) {
	t.Parallel()
	prefix := shared.memory.Host + "/rotated/"
	w := way{keyless: true, log: signer.RekorV2, timestamp: true, bundle: true}
	image := publish(t, prefix+"app", "v1", false)
	w.sign(t, image, signer.Key{})
	file := filepath.Join(t.TempDir(), rootKey)
	set := func(content string) {
		t.Helper()
		if err := os.WriteFile(file+".new", []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	another := rootJSON(t, otherRoot(t))
	set(another)
	a := w.asks(signer.Key{}, rootRef{})
	a.stamp = false // which is always of a root that is named
	j := newJudge(t, "rotated", map[string]string{"rules.yaml": imageConfig("rotated", authorized(prefix, []authority{a}))}, "--trusted-root", file)
	j.judges(t, "anywhere", image, noEntry)
	becomes := func(what string, allowed bool) {
		t.Helper()
		shared.eventually(t, inForce, what, func(context.Context) error {
			if got := j.ask(t, "anywhere", image.byDigest()); got.Allowed != allowed {
				return fmt.Errorf("allowed is %t: %+v", got.Allowed, got.Result)
			}
			return nil
		})
	}
	set(string(shared.sigstore.TrustedRoot))
	becomes("the root", true)
	set("{")
	time.Sleep(inForce)
	j.judges(t, "anywhere", image, "")
	set(another)
	becomes("another root", false)
	j.judges(t, "anywhere", image, noEntry)
	j.dialledNobody(t)
}

// TestExpired: what was signed with certificates that have expired since is
// accepted, by the command line, as long as somebody who is trusted says that it
// was signed in time; nothing else says so.
func TestExpired(t *testing.T) {
	t.Parallel()
	below := shared.memory.Host + "/expired"
	expired, err := sigstore.PushExpired(t.Context(), below)
	if err != nil {
		t.Fatal(err)
	}
	var rules bytes.Buffer
	images := map[string]string{} // by case
	for _, c := range expired.Cases {
		images[c.Name] = c.Image
		w := way{keyless: true, timestamp: c.Timestamp, log: c.Log, attest: c.Attestation}
		a := w.asks(signer.Key{}, rootRef{})
		a.subject, a.issuer, a.stamp = sigstore.ExpiredSubject, sigstore.GoogleIssuer, false
		a.log = false // either is enough
		rules.WriteString(imageConfig(c.Name, authorized(below+"/"+c.Name, []authority{a})))
	}
	policies := filepath.Join(t.TempDir(), "policies.yaml")
	if err := os.WriteFile(policies, rules.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	other := otherRoot(t)
	for name, test := range map[string]struct {
		change func(*sigstore.Root)
		lacks  func(sigstore.ExpiredCase) bool // has nobody who says when
		exit   int
	}{
		"all":                         {func(*sigstore.Root) {}, func(sigstore.ExpiredCase) bool { return false }, 0},
		"another timestamp authority": {func(r *sigstore.Root) { r.Timestamp = other.Timestamp }, func(c sigstore.ExpiredCase) bool { return c.Timestamp }, 1},
		"no timestamp authority":      {func(r *sigstore.Root) { r.Timestamp = nil }, func(c sigstore.ExpiredCase) bool { return c.Timestamp }, 1},
		"another Rekor 1":             {func(r *sigstore.Root) { r.Rekor1 = other.Rekor1 }, func(c sigstore.ExpiredCase) bool { return c.Log == signer.RekorV1 }, 1},
		"no log":                      {func(r *sigstore.Root) { r.Rekor1, r.Rekor2 = nil, nil }, func(c sigstore.ExpiredCase) bool { return c.Log == signer.RekorV1 }, 1},
		"another authority":           {func(r *sigstore.Root) { r.Fulcio = other.Fulcio }, func(sigstore.ExpiredCase) bool { return true }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := expired.Root
			test.change(&root)
			file := filepath.Join(t.TempDir(), rootKey)
			if err := os.WriteFile(file, []byte(rootJSON(t, root)), 0o600); err != nil {
				t.Fatal(err)
			}
			got, exit := verify(t, []string{"-f", policies, "--trusted-root", file}, slices.Sorted(maps.Values(images))...)
			want := map[string]string{}
			for _, c := range expired.Cases {
				want[c.Image] = "Accepted"
				if test.lacks(c) {
					want[c.Image] = "Rejected"
				}
			}
			outcomes := map[string]string{}
			for _, one := range got {
				outcomes[one.Image] = one.Outcome
			}
			if diff := cmp.Diff(want, outcomes); diff != "" || exit != test.exit {
				t.Errorf("exit code %d, want %d; outcomes (-want +got):\n%s\n%+v", exit, test.exit, diff, got)
			}
		})
	}
}

// verified is what the command line says of an image.
type verified struct {
	Image, Outcome string
	Findings       []struct{ Rule, Engine, Message string }
}

// verify runs pratique verify, which can reach nobody but this machine.
func verify(t *testing.T, flags []string, images ...string) (_ []verified, exit int) {
	t.Helper()
	proxy := registrytest.NewProxy(t, nil)
	args := append([]string{"verify", "-o", "json", "--registry-allow-cidrs", "127.0.0.0/8"}, append(flags, images...)...)
	for _, host := range []string{shared.memory.Host, shared.distribution.Host} {
		args = append(args, "--insecure-registries", host)
	}
	command := exec.CommandContext(t.Context(), shared.Binary, args...)
	command.Env = []string{"HOME=/nonexistent", "HTTPS_PROXY=http://" + proxy.Host(), "HTTP_PROXY=http://" + proxy.Host()}
	var stderr bytes.Buffer
	command.Stderr = &stderr
	output, _ := command.Output() // its exit code tells
	var got []verified
	if err := json.Unmarshal(output, &got); err != nil {
		t.Fatalf("%v in\n%s\n%s", err, output, stderr.String())
	}
	if targets := proxy.Targets(); len(targets) > 0 {
		t.Errorf("dialled %q", targets)
	}
	return got, command.ProcessState.ExitCode()
}
