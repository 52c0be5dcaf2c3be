// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cases_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/pratique-dev/pratique/e2e/cluster"
	"github.com/pratique-dev/pratique/e2e/env"
	"github.com/pratique-dev/pratique/e2e/registry"
	"github.com/pratique-dev/pratique/e2e/signer"
	"github.com/pratique-dev/pratique/e2e/sigstore"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// registry1 is the registry that Crossplane's documentation names, which wants a
// password. Only by a proxy can it be found under its name.
type registry1 struct {
	*registry.Process

	cert  cluster.ServingCert
	proxy *registrytest.Proxy
}

const registry1Name = "registry1.com"

func newRegistry1(t *testing.T) *registry1 {
	t.Helper()
	cert, err := cluster.NewServingCert(t.TempDir(), registry1Name)
	if err != nil {
		t.Fatal(err)
	}
	running, err := registry.StartProcess(t.Context(), registry.ProcessOptions{
		Dir: t.TempDir(), Cert: &cert, Users: map[string]string{user: password, pusher: pusherPassword},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := running.Stop(); err != nil {
			t.Error(err)
		}
	})
	return &registry1{running, cert, registrytest.NewProxy(t, map[string]string{registry1Name + ":443": running.Host})}
}

// receive copies an image with all that is attached to it, and returns it under
// the name that it has here.
func (r *registry1) receive(t *testing.T, image published, repository string) published {
	t.Helper()
	client := r.Transport()
	defer client.CloseIdleConnections()
	options := []remote.Option{
		remote.WithTransport(client), remote.WithContext(t.Context()), remote.WithAuth(&authn.Basic{Username: pusher, Password: pusherPassword}),
	}
	for _, tag := range []string{image.tag, attachedTag(image.digest, ".att"), attachedTag(image.digest, ".sig"), attachedTag(image.digest, "")} {
		from, err := name.NewTag(image.repository + ":" + tag)
		if err != nil {
			t.Fatal(err)
		}
		found, err := remote.Get(from)
		if err != nil {
			continue // it has not all of them
		}
		to, err := name.NewTag(r.Host + "/" + repository + ":" + tag)
		if err != nil {
			t.Fatal(err)
		}
		if found.MediaType.IsIndex() {
			content, err := found.ImageIndex()
			if err != nil {
				t.Fatal(err)
			}
			if err := remote.WriteIndex(to, content, options...); err != nil {
				t.Fatal(err)
			}
			continue
		}
		content, err := found.Image()
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.Write(to, content, options...); err != nil {
			t.Fatal(err)
		}
	}
	return published{registry1Name + "/" + repository, image.tag, image.digest}
}

// revisionReview is a review of a package's revision.
func revisionReview(image string) string {
	return fmt.Sprintf(`{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "u",
  "kind": {"group": "pkg.crossplane.io", "version": "v1", "kind": "ConfigurationRevision"},
  "resource": {"group": "pkg.crossplane.io", "version": "v1", "resource": "configurationrevisions"},
  "operation": "CREATE", "userInfo": {"username": "me"}, "object": {"apiVersion": "pkg.crossplane.io/v1",
  "kind": "ConfigurationRevision", "metadata": {"name": "r"}, "spec": {"image": %q}}}}`, image)
}

// crossplaneJudges: the two ImageConfigs that Crossplane's documentation prints,
// to the letter, judge images at registry1.com: by the attestation, its identity
// and a log, read with the pull secret that the document says how to make. The
// server has the trust root by --trusted-root.
func crossplaneJudges(t *testing.T) {
	r := newRoom(t, env.OtherServer+"=registry1")
	host := newRegistry1(t)
	root := filepath.Join(t.TempDir(), rootKey)
	if err := os.WriteFile(root, r.sigstore.TrustedRoot, 0o600); err != nil {
		t.Fatal(err)
	}
	checkout, err := env.Root()
	if err != nil {
		t.Fatal(err)
	}
	if _, stderr, exit := r.Kubectl(t.Context(), "apply", "-f", filepath.Join(checkout, "policy", "source", "testdata", "crossplane-document.yaml")); exit != 0 {
		t.Fatal(stderr)
	}
	t.Cleanup(func() {
		_, _, _ = r.Kubectl(context.Background(), "delete", "imageconfigs.pkg.crossplane.io", "acme-packages", "verify-acme-packages")
		_, _, _ = r.Kubectl(context.Background(), "-n", crossplaneNamespace, "delete", "secret", "acme-registry-credentials")
	})
	s := r.beside(t, env.ServerOptions{
		Name: "registry1", Args: []string{"--trusted-root", root, "--ca-file", host.cert.CAFile}, Unset: []string{"NO_PROXY", "no_proxy"},
		Environment: []string{"HTTPS_PROXY=http://" + host.proxy.Host()},
	})

	supplyChain := sigstore.Workflow{Repository: "acme-co/crossplane-packages", File: "supplychain.yml"}
	const named = "https://github.com/acme-co/crossplane-packages/.github/workflows/supplychain.yml@refs/heads/main"
	if supplyChain.Subject() != named {
		t.Fatalf("the workflow is %s", supplyChain.Subject())
	}
	spdx := signer.Attestation{Type: "spdxjson", Predicate: []byte(`{"spdxVersion": "SPDX-2.3", "SPDXID": "SPDXRef-DOCUMENT", "name": "foo"}`)}
	attested, bundled := way{keyless: true, log: signer.RekorV1, attest: true}, way{keyless: true, log: signer.RekorV1, bundle: true, attest: true}
	// made is an image at registry1.com that a workflow has attested in a way.
	made := func(repository, tag string, w way, workflow sigstore.Workflow, attestation signer.Attestation) published {
		t.Helper()
		token, err := r.sigstore.ActionsToken(workflow)
		if err != nil {
			t.Fatal(err)
		}
		image := publish(t, r.distribution.Host+"/"+r.namespace+"/"+tag, tag, false)
		w.signWith(t, image, signer.Options{IdentityToken: token, Log: w.log, Timestamp: w.timestamp, Attestation: attestation})
		return host.receive(t, image, repository)
	}
	const foo, bar = "acme-co/configuration-foo", "acme-co/configuration-bar"
	good := made(foo, "v0.2.0", attested, supplyChain, spdx)

	// The pull secret is missing yet.
	r.eventually(t, inForce, "registry1.com wants a password", func(ctx context.Context) error {
		if err := r.try(ctx, pod("x", good.byTag())).err; err == nil || !strings.Contains(err.Error(), "answered 401") {
			return fmt.Errorf("answered %w", errors.Join(err, errors.New("not 401")))
		}
		return nil
	})
	if _, stderr, exit := r.Kubectl(t.Context(), "-n", crossplaneNamespace, "create", "secret", "docker-registry", "acme-registry-credentials",
		"--docker-server="+registry1Name, "--docker-username="+user, "--docker-password="+password); exit != 0 {
		t.Fatal(stderr)
	}
	r.eventually(t, inForce, "it is read", func(ctx context.Context) error { return r.try(ctx, pod("x", good.byTag())).err })
	r.create(t.Context(), pod("stored", good.byTag())).admitted(t, good.pinned())
	second := made(bar, "v1", bundled, supplyChain, spdx)
	r.try(t.Context(), pod("bundled", second.byTag())).admitted(t, second.pinned())

	release, branch := supplyChain, supplyChain
	release.File, branch.Ref = "release.yml", "refs/heads/dev"
	elsewhere := sigstore.Workflow{Repository: "acme-co-evil/crossplane-packages", File: "supplychain.yml"}
	const by = `Rejected by ImageConfig.pkg.crossplane.io "verify-acme-packages": authority "verify acme packages": `
	const nobody = by + `attestation "verify attestations": signed by %q (issuer "https://token.actions.githubusercontent.com"), which none of its identities names`
	signed := way{keyless: true, log: signer.RekorV1}
	stamped := way{keyless: true, timestamp: true, attest: true}
	client := poster(t, s)
	judged := func(image published, text string) {
		t.Helper()
		got := r.try(t.Context(), pod("x", image.byTag()))
		status, body := post(t, client, "https://"+s.Address+"/validate?timeout=5s", "application/json", strings.NewReader(revisionReview(image.byTag())))
		packaged := reviewed(t, status, body)
		if text == "" {
			got.admitted(t, image.pinned())
			if !packaged.Allowed {
				t.Errorf("%s is refused as a package: %s", image.byTag(), packaged.Result.Message)
			}
			return
		}
		got.refused(t, rejected, image.pinned()+" "+text)
		if packaged.Allowed || packaged.Result.Code != rejected || !strings.Contains(packaged.Result.Message, text) {
			t.Errorf("%s as a package: %+v", image.byTag(), packaged)
		}
	}
	judged(good, "")
	judged(second, "")
	judged(made(foo, "workflow", attested, release, spdx), fmt.Sprintf(nobody, release.Subject()))
	judged(made(foo, "branch", bundled, branch, spdx), fmt.Sprintf(nobody, branch.Subject()))
	judged(made(foo, "elsewhere", attested, elsewhere, spdx), fmt.Sprintf(nobody, elsewhere.Subject()))
	judged(made(foo, "signed", signed, supplyChain, signer.Attestation{}), by+`no attestation of type "https://spdx.dev/Document"`)
	judged(made(bar, "custom", bundled, supplyChain, signer.Attestation{Type: "custom", Predicate: []byte(`{"a": 1}`)}), by+`no attestation of type "https://spdx.dev/Document"`)
	// As Crossplane judges, a log is always asked for.
	judged(made(foo, "unlogged", stamped, supplyChain, spdx), by+`attestation "verify attestations": `+noEntry)
	// What the second one does not name is not verified.
	other := made("acme-co/provider", "v1", signed, supplyChain, signer.Attestation{})
	r.try(t.Context(), pod("x", other.byTag())).admitted(t, other.byTag())

	for _, target := range host.proxy.Targets() {
		if target != "CONNECT "+registry1Name+":443" {
			t.Errorf("dialled %s", target)
		}
	}
}
