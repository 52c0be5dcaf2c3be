// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package installed_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/pratique-dev/pratique/e2e/node"
	"github.com/pratique-dev/pratique/e2e/signer"
	"github.com/pratique-dev/pratique/e2e/signer/cosign2"
)

const (
	// pusher puts images into the vault; puller is whom the pull secret is of.
	pusher, pusherPassword = "pusher", "s3cret-of-the-pusher"
	puller, pullerPassword = "puller", "s3cret-of-the-puller"
	// team is the namespace that Pods of acme's are made in.
	team = "team"
	// chillers is how many images are made at the same time.
	chillers = 4
)

// acme is whose images these are.
type acme struct {
	key signer.Key
	// signed and unsigned are in the vault, with a program that serves HTTP.
	signed, unsigned published
	// cold are images that nobody has asked for yet, once chill has made some.
	cold chan question
}

// A published image: its tag, by which it is written, and its digest.
type published struct {
	tag    string
	digest v1.Hash
}

// pinned is how it is stored.
func (p published) pinned() string { return p.tag + "@" + p.digest.String() }

// newAcme makes the images and the key. Cosign knows nothing of the vault's
// authority; what it signs elsewhere is carried there with its signature.
func (w *world) newAcme(ctx context.Context) (*acme, error) {
	a := &acme{}
	var err error
	if a.key, err = signer.GenerateKeyPair(w.dir, "secret"); err != nil {
		return nil, err
	}
	for name, into := range map[string]*published{"signed": &a.signed, "unsigned": &a.unsigned} {
		draft := w.node.Registry + "/draft/" + name
		// Who they run as makes them two images.
		user := map[string]string{"signed": "65532:65532", "unsigned": "65533:65533"}[name]
		if err := w.node.Push(ctx, draft+":v1", node.Image{Package: "./nodecases/probe", User: user}); err != nil {
			return nil, err
		}
		into.tag = w.vault.Host + "/acme/" + name + ":v1"
		if into.digest, err = w.copyTag(ctx, draft+":v1", into.tag); err != nil {
			return nil, err
		}
		if name == "unsigned" {
			continue
		}
		if err := w.sign(ctx, a.key, draft+":v1", *into); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// chill makes so many images that nobody has asked for yet, every third signed.
func (w *world) chill(ctx context.Context, n int) error {
	made, errs := make([]question, n), make([]error, n)
	var makers sync.WaitGroup
	for first := range chillers {
		makers.Go(func() {
			for i := first; i < n; i += chillers {
				made[i], errs[i] = w.chilled(ctx, i)
			}
		})
	}
	makers.Wait()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("making images: %w", err)
	}
	w.acme.cold = make(chan question, n)
	for _, q := range made {
		w.acme.cold <- q
	}
	return nil
}

// chilled makes the i-th: nothing but a digest of its own.
func (w *world) chilled(ctx context.Context, i int) (question, error) {
	image, err := mutate.Config(empty.Image, v1.Config{Labels: map[string]string{"number": strconv.Itoa(i)}})
	if err != nil {
		return question{}, err
	}
	tag := fmt.Sprintf(":v%d", i)
	draft := w.node.Registry + "/draft/cold" + tag
	reference, err := name.NewTag(draft)
	if err != nil {
		return question{}, err
	}
	if err := remote.Write(reference, image, remote.WithContext(ctx)); err != nil {
		return question{}, err
	}
	q := question{image: published{tag: w.vault.Host + "/acme/cold" + tag}, signed: i%3 == 0}
	if q.image.digest, err = w.copyTag(ctx, draft, q.image.tag); err != nil || !q.signed {
		return q, err
	}
	return q, w.sign(ctx, w.acme.key, draft, q.image)
}

// sign signs a draft by its tag :v…, and carries the signature to where the image
// was copied.
func (w *world) sign(ctx context.Context, key signer.Key, draft string, to published) error {
	from, _, _ := strings.Cut(draft, ":v")
	if err := cosign2.Sign(ctx, key, from+"@"+to.digest.String(), nil); err != nil {
		return fmt.Errorf("signing: %w", err)
	}
	signature := fmt.Sprintf(":sha256-%s.sig", to.digest.Hex)
	repository, _, _ := strings.Cut(to.tag, ":v")
	_, err := w.copyTag(ctx, from+signature, repository+signature)
	return err
}

func (w *world) asPusher(ctx context.Context, transport http.RoundTripper) []remote.Option {
	return []remote.Option{
		remote.WithContext(ctx), remote.WithTransport(transport),
		remote.WithAuth(&authn.Basic{Username: pusher, Password: pusherPassword}),
	}
}

// policy is acme's rule: what is in the vault must be signed, and Pods are given
// the password for it. Arguments: the vault's host, the key, the password file.
const policy = `
apiVersion: v1
kind: Secret
metadata: {name: acme-pull, namespace: pratique-system}
type: kubernetes.io/dockerconfigjson
stringData:
  .dockerconfigjson: '{"auths": {%[1]q: {"username": %[3]q, "password": %[4]q}}}'
---
apiVersion: pratique.dev/v1alpha1
kind: ImageConfig
metadata: {name: acme}
spec:
  matchImages: [{prefix: %[1]s/acme/}]
  registry:
    authentication:
      pullSecretRef: {name: acme-pull}
      inject: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: team}}}
  verification:
    provider: Cosign
    cosign: {authorities: [{name: acme, key: {data: %[2]q}}]}
`

// rules puts acme's rule into force.
func (r *installation) rules(t *testing.T) {
	t.Helper()
	a := shared.acme
	apply(t, fmt.Sprintf(policy, shared.vault.Host, a.key.PublicPEM, puller, pullerPassword))
	kubectl(t, "wait", "--for=condition=Ready", "--timeout=60s", "imageconfig.pratique.dev/acme")
	kubectl(t, "wait", "--for=condition=PullSecretsCopied", "--timeout=60s", "imageconfig.pratique.dev/acme")
}
