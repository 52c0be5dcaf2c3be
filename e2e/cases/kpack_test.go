// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cases_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/pratique-dev/pratique/e2e/env"
	"github.com/pratique-dev/pratique/e2e/signer"
	"github.com/pratique-dev/pratique/e2e/signer/cosign2"
)

// carry copies what is under a tag into a vault, where only the pusher may, and
// returns its media type.
func (v *vault) carry(t *testing.T, from, to string) types.MediaType {
	t.Helper()
	source, err := name.NewTag(from, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	content, err := remote.Image(source, remote.WithContext(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	target, err := name.NewTag(to)
	if err != nil {
		t.Fatal(err)
	}
	client := v.Transport(pair(t, v.client))
	defer client.CloseIdleConnections()
	err = remote.Write(target, content, remote.WithTransport(client), remote.WithContext(t.Context()),
		remote.WithAuth(&authn.Basic{Username: pusher, Password: pusherPassword}))
	if err != nil {
		t.Fatal(err)
	}
	media, err := content.MediaType()
	if err != nil {
		t.Fatal(err)
	}
	return media
}

// TestKpack: an image as kpack signs it (docs/image.md, "Cosign Configuration"):
// by cosign 2 with a key, in no log, with the build's number and time and the
// Image's own annotations. The key's Secret says that signatures go to another
// registry, with credentials of its own, in Docker's media types.
func TestKpack(t *testing.T) {
	t.Parallel()
	r, v := newRoom(t), newVault(t, false)
	app := r.distribution.Host + "/" + r.namespace + "/app"
	signatures := v.Host + "/" + r.namespace + "/signatures"
	key, other := keyPair(t), keyPair(t)
	annotations := map[string]string{"buildNumber": "1", "buildTimestamp": "20210827.175240", "annotationName": "annotationValue"}

	image := publish(t, app, "v1", false)
	// cosign knows no registry with a certificate of its own.
	staged := r.memory.Host + "/" + r.namespace + "/signatures"
	if err := cosign2.SignWith(t.Context(), image.byDigest(), signer.Options{
		Key: &key, Annotations: annotations, Repository: staged, DockerMediaTypes: true,
	}); err != nil {
		t.Fatal(err)
	}
	tag := ":" + attachedTag(image.digest, ".sig")
	if media := v.carry(t, staged+tag, signatures+tag); media != types.DockerManifestSchema2 {
		t.Errorf("the signature is of the type %s", media)
	}

	// The registry of signatures has an authority of its own, and wants a
	// certificate and a password.
	r.secret(t, env.Namespace, r.namespace+"-tls", "Opaque", v.secret())
	r.policy(t, "-signatures", fmt.Sprintf("\n  matchImages: [{prefix: %q}]\n  registry: {tls: {certSecretRef: {name: %s-tls}}}\n", signatures, r.namespace))
	r.dockerSecret(t, env.Namespace, r.namespace+"-sig", v.Host, user, password)
	elsewhere := fmt.Sprintf("source: [{oci: %q, signaturePullSecrets: [{name: %s-sig}]}]", signatures, r.namespace)
	asks := func(key signer.Key, annotations map[string]string, more ...string) string {
		var pairs []string
		for name, value := range annotations {
			pairs = append(pairs, fmt.Sprintf("%s: %q", name, value))
		}
		return authorized(app, []authority{{name: "kpack", key: key.PublicPEM, more: append(more, "annotations: {"+strings.Join(pairs, ", ")+"}")}})
	}
	policy := r.policy(t, "", asks(key, annotations, elsewhere))
	r.create(t.Context(), pod("stored", image.byTag())).admitted(t, image.pinned())
	// As kpack's status names it.
	r.try(t.Context(), pod("latest", image.byDigest())).admitted(t, image.byDigest())

	// kpack signs with each of the keys that it finds, into the same place.
	both := publish(t, app, "v3", true)
	for _, one := range []signer.Key{other, key} {
		if err := cosign2.SignWith(t.Context(), both.byDigest(), signer.Options{Key: &one, Annotations: annotations, Repository: staged, DockerMediaTypes: true}); err != nil {
			t.Fatal(err)
		}
	}
	tag = ":" + attachedTag(both.digest, ".sig")
	v.carry(t, staged+tag, signatures+tag)
	r.try(t.Context(), pod("both", both.byTag())).admitted(t, both.pinned())

	with := func(name, value string) map[string]string {
		changed := maps.Clone(annotations)
		changed[name] = value
		return changed
	}
	const lacks = `authority "kpack": no signature by its key has all the annotations `
	for what, test := range map[string]struct {
		spec, text string
		code       int32
	}{
		"another value":   {asks(key, with("annotationName", "another"), elsewhere), lacks + `"annotationName=another,buildNumber=1,`, rejected},
		"another case":    {asks(key, with("annotationName", "AnnotationValue"), elsewhere), lacks, rejected},
		"a name's case":   {asks(key, map[string]string{"AnnotationName": "annotationValue"}, elsewhere), lacks, rejected},
		"a further one":   {asks(key, with("reviewed", "yes"), elsewhere), lacks, rejected},
		"another key":     {asks(other, annotations, elsewhere), `authority "kpack": no signature matches its key (1 found)`, rejected},
		"a log":           {asks(key, annotations, elsewhere, "ctlog: {"+r.root(t, "ConfigMap", string(r.sigstore.TrustedRoot)).field()+"}"), noEntry, rejected},
		"not there":       {asks(key, annotations), "no signature", rejected},
		"no credentials":  {asks(key, annotations, fmt.Sprintf("source: [{oci: %q}]", signatures)), "answered 401", inconclusive},
		"some annotation": {asks(key, map[string]string{"buildNumber": "1"}, elsewhere), "", 0},
	} {
		t.Run(what, func(t *testing.T) {
			r.change(t, policy, test.spec)
			r.awaitReady(t, policy, "True", "Compiled")
			got := r.try(t.Context(), pod("app", image.byTag()))
			if test.code == 0 {
				got.admitted(t, image.pinned())
				return
			}
			got.refused(t, test.code, "spec.containers[0].image: "+image.pinned(), test.text)
		})
	}

	t.Run("only beside the image", func(t *testing.T) {
		r.change(t, policy, asks(key, annotations, elsewhere))
		r.awaitReady(t, policy, "True", "Compiled")
		beside := publish(t, app, "v2", false)
		if err := cosign2.SignWith(t.Context(), beside.byDigest(), signer.Options{Key: &key, Annotations: annotations}); err != nil {
			t.Fatal(err)
		}
		r.try(t.Context(), pod("app", beside.byTag())).refused(t, rejected, beside.pinned(), "no signature")
		r.try(t.Context(), pod("app", image.byTag())).admitted(t, image.pinned())
	})
}
