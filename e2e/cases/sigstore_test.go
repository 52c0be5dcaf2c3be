// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cases_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pratique-dev/pratique/e2e/env"
	"github.com/pratique-dev/pratique/e2e/signer"
	"github.com/pratique-dev/pratique/e2e/signer/cosign2"
	"github.com/pratique-dev/pratique/e2e/signer/cosign3"
	"github.com/pratique-dev/pratique/e2e/sigstore"

	ociremote "github.com/sigstore/cosign/v2/pkg/oci/remote"
)

const (
	// robot is who signs without a key, if nobody else is named.
	robot, robotIssuer = "robot@example.com", sigstore.GoogleIssuer
	// rootKey is where trust roots are in ConfigMaps and Secrets.
	rootKey = "trusted_root.json"
	// What cosign calls "custom".
	customPredicate = "https://cosign.sigstore.dev/attestation/v1"
)

// rootRef names the object with a trust root; the zero value the server's own.
type rootRef struct{ kind, name string }

// field is the reference as a field of a manifest, empty for the server's own.
func (r rootRef) field() string {
	if r.name == "" {
		return ""
	}
	return fmt.Sprintf("trustRootRef: {kind: %s, name: %s, key: %s}", r.kind, r.name, rootKey)
}

// authority is one as the cases write them: by key, or by identity if there is
// no key.
type authority struct {
	name, key       string
	subject, issuer string
	// identities, if not empty, are in the place of subject and issuer, as a
	// manifest has them.
	identities string
	ignoreSCT  bool
	root       rootRef
	log, stamp bool
	// predicate is the type of the attestation that is asked for, policy what
	// that must fulfil, as a manifest has it.
	predicate, policy string
	more              []string // further fields
}

// String is the authority in a manifest, on one line.
func (a authority) String() string {
	if a.name == "" {
		a.name = "release"
	}
	fields := []string{fmt.Sprintf("name: %q", a.name)}
	if a.key != "" {
		fields = append(fields, fmt.Sprintf("key: {data: %q}", a.key))
	} else {
		if a.identities == "" {
			a.identities = fmt.Sprintf("[{issuer: %q, subject: %q}]", a.issuer, a.subject)
		}
		keyless := []string{"identities: " + a.identities, fmt.Sprintf("insecureIgnoreSCT: %t", a.ignoreSCT)}
		if a.root.name != "" {
			keyless = append(keyless, a.root.field())
		}
		fields = append(fields, "keyless: {"+strings.Join(keyless, ", ")+"}")
	}
	if a.log {
		fields = append(fields, "ctlog: {"+a.root.field()+"}")
	}
	if a.stamp {
		fields = append(fields, "rfc3161timestamp: {"+a.root.field()+"}")
	}
	if a.predicate != "" {
		policy := ""
		if a.policy != "" {
			policy = ", policy: " + a.policy
		}
		fields = append(fields, fmt.Sprintf("attestations: [{name: wanted, predicateType: %q%s}]", a.predicate, policy))
	}
	return "{" + strings.Join(append(fields, a.more...), ", ") + "}"
}

// authorized is a spec that asks for one of the authorities under a prefix. More
// lines of the spec may follow.
func authorized(prefix string, authorities []authority, more ...string) string {
	var list []string
	for _, a := range authorities {
		list = append(list, a.String())
	}
	return fmt.Sprintf("\n  matchImages: [{prefix: %q}]\n  verification: {provider: Cosign, cosign: {authorities: [%s]}}\n%s\n",
		prefix, strings.Join(list, ", "), strings.Join(more, "\n"))
}

// way is one of the ways to sign.
type way struct {
	keyless, timestamp bool
	log                signer.Log
	bundle             bool // by cosign 3, not by cosign 2
	attest             bool
}

// String names the way as a part of a repository's name.
func (w way) String() string {
	parts := []string{"key", "tag", "nolog", "signature"}
	if w.keyless {
		parts[0] = "keyless"
	}
	if w.timestamp {
		parts[0] += "-timestamp"
	}
	if w.bundle {
		parts[1] = "bundle"
	}
	switch w.log {
	case signer.NoLog:
	case signer.RekorV1:
		parts[2] = "rekor1"
	case signer.RekorV2:
		parts[2] = "rekor2"
	}
	if w.attest {
		parts[3] = "attestation"
	}
	return strings.Join(parts, "-")
}

// possible says whether cosign signs in this way, and whether what it makes
// tells all that a verifier has to know.
func (w way) possible() bool {
	switch {
	case w.log == signer.RekorV2 && !w.bundle:
		return false // the older form has no place for its proof
	case w.keyless && !w.timestamp:
		return w.log == signer.RekorV1 // the others do not say when
	case !w.keyless && w.timestamp:
		return false // a key has no need of it
	}
	return true
}

// ways are all that are possible.
func ways() []way {
	var all []way
	for _, keyless := range []bool{false, true} {
		for _, timestamp := range []bool{false, true} {
			for _, log := range []signer.Log{signer.NoLog, signer.RekorV1, signer.RekorV2} {
				for _, bundle := range []bool{false, true} {
					for _, attest := range []bool{false, true} {
						if w := (way{keyless, timestamp, log, bundle, attest}); w.possible() {
							all = append(all, w)
						}
					}
				}
			}
		}
	}
	return all
}

// sign signs the image in this way, by the key or as the robot.
func (w way) sign(t *testing.T, image published, key signer.Key) {
	t.Helper()
	o := signer.Options{Log: w.log, Timestamp: w.timestamp}
	if w.keyless {
		o.IdentityToken = emailToken(t, robotIssuer, robot)
	} else {
		o.Key = &key
	}
	if w.attest {
		o.Attestation = signer.Attestation{Type: "custom", Predicate: []byte(`{"tests": "passed"}`)}
	}
	w.signWith(t, image, o)
}

func (w way) signWith(t *testing.T, image published, o signer.Options) {
	t.Helper()
	o.Services = shared.sigstore.Services
	sign := map[bool]map[bool]signer.OptionsFunc{
		true:  {false: cosign3.SignWith, true: cosign3.Attest},
		false: {false: cosign2.SignWith, true: cosign2.Attest},
	}[w.bundle][w.attest]
	if err := sign(t.Context(), image.byDigest(), o); err != nil {
		t.Fatalf("signing by %s: %v", w, err)
	}
}

// asks is the strictest authority that what is signed in this way satisfies.
func (w way) asks(key signer.Key, root rootRef) authority {
	a := authority{log: w.log != signer.NoLog, stamp: w.timestamp, root: root}
	if w.keyless {
		a.subject, a.issuer = robot, robotIssuer
	} else {
		a.key = key.PublicPEM
	}
	if w.attest {
		a.predicate = "custom"
	}
	return a
}

func emailToken(t *testing.T, issuer, email string) string {
	t.Helper()
	token, err := shared.sigstore.EmailToken(issuer, email)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func keyPair(t *testing.T) signer.Key {
	t.Helper()
	key, err := signer.GenerateKeyPair(t.TempDir(), "secret")
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func rootJSON(t *testing.T, root sigstore.Root) string {
	t.Helper()
	content, err := root.JSON()
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// otherRoot is the trust root of a Sigstore that nobody runs.
func otherRoot(t *testing.T) sigstore.Root {
	t.Helper()
	root, err := sigstore.NewRoot()
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// attachedTag is where cosign 2 puts what it says of an image.
func attachedTag(digest, suffix string) string {
	return strings.Replace(digest, ":", "-", 1) + suffix
}

// move attaches all that is attached to one image to another, as anybody may
// who may push.
func move(t *testing.T, from, to published) {
	t.Helper()
	for _, suffix := range []string{".sig", ".att"} {
		source, err := name.NewTag(from.repository + ":" + attachedTag(from.digest, suffix))
		if err != nil {
			t.Fatal(err)
		}
		image, err := remote.Image(source)
		if err != nil {
			continue // there is none in this form
		}
		target, err := name.NewTag(to.repository + ":" + attachedTag(to.digest, suffix))
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.Write(target, image); err != nil {
			t.Fatal(err)
		}
	}
	target, err := name.NewDigest(to.byDigest())
	if err != nil {
		t.Fatal(err)
	}
	for _, bundle := range bundlesOf(t, from) {
		if err := ociremote.WriteAttestationNewBundleFormat(target, bundle, "https://example.com/x"); err != nil {
			t.Fatal(err)
		}
	}
}

// bundlesOf reads the bundles that refer to an image.
func bundlesOf(t *testing.T, image published) [][]byte {
	t.Helper()
	ref, err := name.NewDigest(image.byDigest())
	if err != nil {
		t.Fatal(err)
	}
	index, err := remote.Referrers(ref)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	var bundles [][]byte
	for _, descriptor := range manifest.Manifests {
		referrer, err := remote.Image(ref.Context().Digest(descriptor.Digest.String()))
		if err != nil {
			t.Fatal(err)
		}
		layers, err := referrer.Layers()
		if err != nil || len(layers) != 1 {
			t.Fatalf("%d layers, %v", len(layers), err)
		}
		content, err := layers[0].Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		bundle, err := io.ReadAll(content)
		_ = content.Close()
		if err != nil {
			t.Fatal(err)
		}
		bundles = append(bundles, bundle)
	}
	return bundles
}

// configMap makes a ConfigMap in Pratique's namespace that goes with the case.
func (r *room) configMap(t *testing.T, name string, data map[string]string) {
	t.Helper()
	maps := r.client.CoreV1().ConfigMaps(env.Namespace)
	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: data}
	if _, err := maps.Create(t.Context(), object, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = maps.Delete(context.Background(), name, metav1.DeleteOptions{}) })
}

func (r *room) changeConfigMap(t *testing.T, name string, data map[string]string) {
	t.Helper()
	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: data}
	if _, err := r.client.CoreV1().ConfigMaps(env.Namespace).Update(t.Context(), object, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// root makes an object with a trust root in Pratique's namespace, named as the
// room.
func (r *room) root(t *testing.T, kind, content string) rootRef {
	t.Helper()
	data := map[string]string{rootKey: content}
	if kind == "Secret" {
		r.secret(t, env.Namespace, r.namespace, "Opaque", data)
	} else {
		r.configMap(t, r.namespace, data)
	}
	return rootRef{kind, r.namespace}
}

// TestSigstore: what is signed with the whole of Sigstore is admitted and
// pinned, by the trust root in a ConfigMap and in a Secret; what another signed,
// and what another says of the image, is refused. All the ways to sign are in
// TestMatrix.
func TestSigstore(t *testing.T) {
	t.Parallel()
	for i, w := range []way{
		{keyless: true, log: signer.RekorV1},
		{keyless: true, timestamp: true, attest: true},
		{keyless: true, log: signer.RekorV1, bundle: true, attest: true},
		{keyless: true, timestamp: true, log: signer.RekorV2, bundle: true},
		{log: signer.RekorV2, bundle: true},
	} {
		t.Run(w.String(), func(t *testing.T) {
			t.Parallel()
			r := newRoom(t)
			host := []string{r.memory.Host, r.distribution.Host}[i%2]
			kind := []string{"ConfigMap", "Secret"}[i%2]
			prefix := host + "/" + r.namespace + "/"
			key, other := keyPair(t), keyPair(t)
			r.policy(t, "", authorized(prefix, []authority{w.asks(key, r.root(t, kind, string(r.sigstore.TrustedRoot)))}))
			good, bare := publish(t, prefix+"app", "v1", i%2 == 0), publish(t, prefix+"bare", "v1", false)
			w.sign(t, good, key)
			r.create(t.Context(), pod("signed", good.byTag())).admitted(t, good.pinned())
			r.try(t.Context(), pod("bare", bare.byTag())).refused(t, rejected, bare.pinned()+" Rejected by ImageConfig", `no `)

			forged := publish(t, prefix+"forged", "v1", false)
			o := signer.Options{Key: &other, Log: w.log, Timestamp: w.timestamp}
			by := "no signature matches its key (1 found)"
			if w.keyless {
				o.Key, o.IdentityToken = nil, emailToken(t, robotIssuer, "rob0t@example.com")
				by = `signed by "rob0t@example.com" (issuer "` + robotIssuer + `"), which none of its identities names`
			}
			if w.attest {
				o.Attestation = signer.Attestation{Type: "custom", Predicate: []byte(`{"tests": "passed"}`)}
			}
			w.signWith(t, forged, o)
			r.try(t.Context(), pod("forged", forged.byTag())).refused(t, rejected, forged.pinned()+" Rejected by ImageConfig", by)

			moved := publish(t, prefix+"moved", "v1", false)
			move(t, good, moved)
			r.try(t.Context(), pod("moved", moved.byTag())).refused(t, rejected, moved.pinned()+" Rejected by ImageConfig", w.elsewhere())
		})
	}
}

// TestTrustRootRotates: another trust root in the same ConfigMap, and in the
// same Secret, is in force within 5 s, and so is that one is missing, or is none.
func TestTrustRootRotates(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"ConfigMap", "Secret"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			r := newRoom(t)
			prefix := r.memory.Host + "/" + r.namespace + "/"
			w := way{keyless: true, timestamp: true, bundle: true}
			good := publish(t, prefix+"app", "v1", false)
			w.sign(t, good, signer.Key{})
			name := r.policy(t, "", authorized(prefix, []authority{w.asks(signer.Key{}, r.root(t, kind, rootJSON(t, otherRoot(t))))}))
			r.try(t.Context(), pod("before", good.byTag())).refused(t, rejected, noStamp)

			set := func(content string) {
				t.Helper()
				if kind == "Secret" {
					r.rewrite(t, env.Namespace, r.namespace, map[string]string{rootKey: content})
				} else {
					r.changeConfigMap(t, r.namespace, map[string]string{rootKey: content})
				}
			}
			// What was refused under the old root is not remembered under the new one.
			within := func(what, text string, code int32) {
				t.Helper()
				r.eventually(t, inForce, what, func(ctx context.Context) error {
					got := r.try(ctx, pod("app", good.byTag()))
					switch {
					case text == "":
						return got.err
					case got.err == nil || !strings.Contains(got.err.Error(), text):
						return fmt.Errorf("answered %w", got.err)
					}
					got.refused(t, code, text)
					return nil
				})
			}
			set(string(r.sigstore.TrustedRoot))
			within("the new root", "", 0)
			changed := time.Now()
			set(rootJSON(t, otherRoot(t)))
			within("another root", noStamp, rejected)
			t.Logf("in force after %s", time.Since(changed))
			set(`{"mediaType": "x"}`)
			within("no root", "it is not ready: ", inconclusive)
			r.awaitReady(t, name, metav1.ConditionFalse, kind+"Invalid")
			set(string(r.sigstore.TrustedRoot))
			within("the root again", "", 0)
		})
	}
}
