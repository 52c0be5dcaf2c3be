// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cases_test

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"

	"github.com/pratique-dev/pratique/e2e/env"
	"github.com/pratique-dev/pratique/e2e/signer"
	"github.com/pratique-dev/pratique/e2e/sigstore"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// A judge is a server without a cluster, whose rules are files, and which is
// asked by hand. Whatever it would ask beyond this machine it asks of a proxy,
// which knows nobody and takes note.
type judge struct {
	*env.Server

	client *http.Client
	folder string
	proxy  *registrytest.Proxy
}

// newJudge starts a judge. Manifests are by the names of their files.
func newJudge(t *testing.T, name string, manifests map[string]string, args ...string) *judge {
	t.Helper()
	j := &judge{folder: t.TempDir(), proxy: registrytest.NewProxy(t, nil)}
	for file, manifest := range manifests {
		j.write(t, file, manifest)
	}
	proxy := "http://" + j.proxy.Host()
	var err error
	j.Server, err = shared.Alone(t.Context(), env.ServerOptions{
		Name: name, Args: append([]string{"--policies", j.folder}, args...), Unset: []string{"KUBECONFIG", "NO_PROXY", "no_proxy"},
		Environment: []string{"HOME=/nonexistent", "HTTPS_PROXY=" + proxy, "HTTP_PROXY=" + proxy},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Terminate(); err != nil {
			t.Error(err)
		}
	})
	j.client = poster(t, j.Server)
	return j
}

func (j *judge) write(t *testing.T, file, manifest string) {
	t.Helper()
	// Not for a moment must it read half of the file.
	path := filepath.Join(j.folder, file)
	if err := os.WriteFile(path+".new", []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// ask asks to validate a Pod of a namespace.
func (j *judge) ask(t *testing.T, namespace, image string) *admissionv1.AdmissionResponse {
	t.Helper()
	status, text := post(t, j.client, "https://"+j.Address+"/validate?timeout=10s", "application/json",
		strings.NewReader(review(namespace, podJSON(image))))
	return reviewed(t, status, text)
}

// dialledNobody fails the test if anybody beyond this machine was asked for.
func (j *judge) dialledNobody(t *testing.T) {
	t.Helper()
	if targets := j.proxy.Targets(); len(targets) > 0 {
		t.Errorf("dialled %q", targets)
	}
}

// expectation is a rule by which an image is judged, and what comes of that.
type expectation struct {
	authority

	// text of the refusal; empty if it is accepted.
	text string
}

// The texts of refusals.
const (
	byNobody      = "no %s matches its key (1 found)"
	byAnother     = `signed by "` + robot + `" (issuer "` + robotIssuer + `"), which none of its identities names`
	noCA          = "its certificate is not vouched for by the trust root"
	noSCT         = "its certificate is not vouched for by a certificate log of the trust root (SCT)"
	noEntry       = "no log entry that the trust root vouches for belongs to it"
	noStamp       = "no signed timestamp that the trust root vouches for belongs to it"
	noAttestation = `no attestation of type "%s"`
	noCertificate = "no %s with a certificate that holds (1 found)"
	ofAnother     = "signed something else than this image"
)

// what is signed.
func (w way) what() string {
	if w.attest {
		return "attestation"
	}
	return "signature"
}

// elsewhere is what is said of an image with what is signed about another one.
// Of a bundle nothing is believed before it is about the image.
func (w way) elsewhere() string {
	switch {
	case !w.bundle:
		return ofAnother
	case w.keyless:
		return fmt.Sprintf(noCertificate, w.what())
	}
	return fmt.Sprintf(byNobody, w.what())
}

// roots are the trust roots of the matrix, by name: the whole one, and those
// that differ from it in one thing.
func roots(t *testing.T) map[string]sigstore.Root {
	t.Helper()
	other := otherRoot(t)
	all := map[string]sigstore.Root{}
	add := func(name string, change func(*sigstore.Root)) {
		root := shared.sigstore.Root
		change(&root)
		all[name] = root
	}
	add("whole", func(*sigstore.Root) {})
	add("another-authority", func(r *sigstore.Root) { r.Fulcio = other.Fulcio })
	add("another-certificate-log", func(r *sigstore.Root) { r.CTLog = other.CTLog })
	add("another-rekor1", func(r *sigstore.Root) { r.Rekor1 = other.Rekor1 })
	add("another-rekor2", func(r *sigstore.Root) { r.Rekor2 = other.Rekor2 })
	add("no-rekor1", func(r *sigstore.Root) { r.Rekor1 = nil })
	add("no-rekor2", func(r *sigstore.Root) { r.Rekor2 = nil })
	add("another-timestamp-authority", func(r *sigstore.Root) { r.Timestamp = other.Timestamp })
	return all
}

// kindOf says which trust roots of the matrix are in Secrets.
func kindOf(root string) string {
	if strings.HasPrefix(root, "another-rekor") || root == "whole" {
		return "Secret"
	}
	return "ConfigMap"
}

// expectations are the rules by which what is signed in a way is judged, each
// the rule of a namespace. Those that refuse differ from the strictest one that
// accepts in one thing.
func (w way) expectations(key, other signer.Key) map[string]expectation {
	all := map[string]expectation{}
	add := func(name, text string, change func(*authority)) {
		a := w.asks(key, rootRef{kindOf("whole"), "whole"})
		change(&a)
		all[name] = expectation{a, text}
	}
	root := func(name, text string) {
		add(name, text, func(a *authority) { a.root = rootRef{kindOf(name), name} })
	}
	add("accepted", "", func(*authority) {})
	add("without-more", "", func(a *authority) { a.log, a.stamp = false, false })
	add("by-the-servers-own-root", "", func(a *authority) { a.root, a.stamp = rootRef{}, false })
	what := w.what()
	if w.attest {
		add("another-type", fmt.Sprintf(noAttestation, "https://spdx.dev/Document"), func(a *authority) { a.predicate = "spdxjson" })
		add("a-signature", "no signature", func(a *authority) { a.predicate = "" })
	} else {
		add("an-attestation", fmt.Sprintf(noAttestation, customPredicate), func(a *authority) { a.predicate = "custom" })
	}
	if w.keyless {
		add("another-subject", byAnother, func(a *authority) { a.subject = "robot@example.co" })
		add("another-issuer", byAnother, func(a *authority) { a.issuer = sigstore.SigstoreIssuer })
		add("a-key", fmt.Sprintf(byNobody, what), func(a *authority) { a.key = key.PublicPEM })
		identities := func(name, text, identities string) { add(name, text, func(a *authority) { a.identities = identities }) }
		identities("expressions", "", `[{issuerRegExp: 'https://[a-z.]+', subjectRegExp: 'robot@.*'}]`)
		identities("half-an-expression", byAnother, `[{issuerRegExp: 'https://[a-z.]+', subjectRegExp: 'obot@example'}]`)
		identities("one-of-two", "", fmt.Sprintf(`[{issuer: %q, subject: x@example.com}, {issuer: %q, subject: %q}]`, robotIssuer, robotIssuer, robot))
		identities("none-of-two", byAnother, fmt.Sprintf(`[{issuer: %q, subject: x@example.com}, {issuer: %q, subject: %q}]`, robotIssuer, sigstore.SigstoreIssuer, robot))
		add("no-certificate-log-asked-for", "", func(a *authority) {
			a.root, a.ignoreSCT = rootRef{kindOf("another-certificate-log"), "another-certificate-log"}, true
		})
		root("another-authority", noCA)
		root("another-certificate-log", noSCT)
	} else {
		add("another-key", fmt.Sprintf(byNobody, what), func(a *authority) { a.key = other.PublicPEM })
		add("an-identity", fmt.Sprintf(noCertificate, what), func(a *authority) {
			a.key, a.subject, a.issuer, a.log, a.root = "", robot, robotIssuer, false, rootRef{kindOf("whole"), "whole"}
		})
	}
	switch w.log {
	case signer.NoLog:
		add("a-log", noEntry, func(a *authority) { a.log = true })
	case signer.RekorV1:
		root("another-rekor1", noEntry)
		root("no-rekor1", noEntry)
	case signer.RekorV2:
		root("another-rekor2", noEntry)
		root("no-rekor2", noEntry)
	}
	if w.timestamp {
		root("another-timestamp-authority", noStamp)
	} else {
		add("a-timestamp", noStamp, func(a *authority) { a.stamp, a.root = true, rootRef{kindOf("whole"), "whole"} })
	}
	return all
}

// repository is where the images of a way are.
func (w way) repository(host string) string { return host + "/matrix/" + w.String() + "/app" }

// matrixManifests are the rules of all ways, the namespaces in which they are,
// and the trust roots.
func matrixManifests(t *testing.T, key, other signer.Key) map[string]string {
	t.Helper()
	var objects, rules strings.Builder
	for name, root := range roots(t) {
		data := "data"
		if kindOf(name) == "Secret" {
			data = "stringData"
		}
		fmt.Fprintf(&objects, "---\napiVersion: v1\nkind: %s\nmetadata: {name: %s, namespace: %s}\n%s: {%s: %q}\n",
			kindOf(name), name, env.Namespace, data, rootKey, rootJSON(t, root))
	}
	namespaces := map[string]bool{}
	for _, w := range ways() {
		for name, e := range w.expectations(key, other) {
			namespaces[name] = true
			fmt.Fprintf(&rules, `---
apiVersion: pratique.dev/v1alpha1
kind: ImageConfig
metadata: {name: %s.%s}
spec:
  matchImages: [{prefix: %q}, {prefix: %q}]
  namespaceSelector: {matchLabels: {expects: %s}}
  verification: {provider: Cosign, cosign: {authorities: [%s]}}
`, w, name, w.repository(shared.memory.Host), w.repository(shared.distribution.Host), name, e.authority)
		}
	}
	for name := range namespaces {
		fmt.Fprintf(&objects, "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: %s, labels: {expects: %s}}\n", name, name)
	}
	return map[string]string{"objects.yaml": objects.String(), "rules.yaml": rules.String()}
}

// TestMatrix: what cosign signs, in every way in which it can, is accepted by
// the rule that asks for just that, and by none that differs in one thing. One
// server has the rules of all; the same image is judged by all that are for it,
// so that no verdict may serve for another rule.
func TestMatrix(t *testing.T) {
	t.Parallel()
	key, other := keyPair(t), keyPair(t)
	root := filepath.Join(t.TempDir(), rootKey)
	if err := os.WriteFile(root, shared.sigstore.TrustedRoot, 0o600); err != nil {
		t.Fatal(err)
	}
	j := newJudge(t, "matrix", matrixManifests(t, key, other), "--trusted-root", root)
	t.Cleanup(func() { j.dialledNobody(t) }) // after all
	for _, w := range ways() {
		for place, host := range map[string]string{"referrers API": shared.memory.Host, "distribution": shared.distribution.Host} {
			for shape, index := range map[string]bool{"image": false, "index": true} {
				t.Run(fmt.Sprintf("%s/%s/%s", w, shape, place), func(t *testing.T) {
					t.Parallel()
					image := publish(t, w.repository(host), shape, index)
					w.sign(t, image, key)
					all := w.expectations(key, other)
					for _, name := range slices.Sorted(maps.Keys(all)) {
						j.judges(t, name, image, all[name].text)
					}
					another := publish(t, w.repository(host), "another-"+shape, index)
					j.judges(t, "accepted", another, "no ")
					moved := publish(t, w.repository(host), "moved-"+shape, index)
					move(t, image, moved)
					j.judges(t, "accepted", moved, w.elsewhere())
				})
			}
		}
	}
}

// judges fails the test unless the image is accepted in the namespace, or
// rejected there with a text.
func (j *judge) judges(t *testing.T, namespace string, image published, text string) {
	t.Helper()
	switch got := j.ask(t, namespace, image.byDigest()); {
	case text == "" && !got.Allowed:
		t.Errorf("%s: refused: %s", namespace, got.Result.Message)
	case text == "" && got.AuditAnnotations["verdict"] != "Accepted":
		t.Errorf("%s: nobody judged: %v", namespace, got.AuditAnnotations)
	case text == "":
	case got.Allowed:
		t.Errorf("%s: accepted", namespace)
	case got.Result.Code != rejected || !strings.Contains(got.Result.Message, text):
		t.Errorf("%s: want %d with %q, got %d: %s", namespace, rejected, text, got.Result.Code, got.Result.Message)
	}
}
