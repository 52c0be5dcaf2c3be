// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package installed_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
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
)

// acme is whose images these are.
type acme struct {
	key signer.Key
	// signed and unsigned are in the vault, with a program that serves HTTP.
	signed, unsigned published
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
		if err := cosign2.Sign(ctx, a.key, draft+"@"+into.digest.String(), nil); err != nil {
			return nil, fmt.Errorf("signing: %w", err)
		}
		signature := fmt.Sprintf(":sha256-%s.sig", into.digest.Hex)
		if _, err := w.copyTag(ctx, draft+signature, strings.TrimSuffix(into.tag, ":v1")+signature); err != nil {
			return nil, err
		}
	}
	return a, nil
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
