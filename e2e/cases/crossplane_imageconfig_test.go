// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cases_test

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/pratique-dev/pratique/e2e/env"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

//go:embed testdata/imageconfigs.pkg.crossplane.io.yaml
var crossplaneImageConfigs string

const (
	crossplaneNamespace = "crossplane-system"
	// crossplaneRights is the file in deploy/rbac that only they need.
	crossplaneRights = "crossplane.yaml"
)

// prepareCrossplane makes Crossplane's namespace, and gives Pratique its rights
// there. The kind itself comes with TestCrossplaneImageConfigs.
func (w *world) prepareCrossplane(ctx context.Context) error {
	root, err := env.Root()
	if err != nil {
		return err
	}
	for _, command := range [][]string{
		{"create", "namespace", crossplaneNamespace}, {"apply", "-f", filepath.Join(root, "deploy", "rbac", crossplaneRights)},
	} {
		if _, stderr, exit := w.Kubectl(ctx, command...); exit != 0 {
			return fmt.Errorf("preparing Crossplane's namespace: %s", stderr)
		}
	}
	return nil
}

// serveImageConfigs makes Crossplane's ImageConfigs known to the API server.
func (r *room) serveImageConfigs(t *testing.T) {
	t.Helper()
	if _, stderr, exit := r.Apply(t.Context(), crossplaneImageConfigs); exit != 0 {
		t.Fatal(stderr)
	}
	if _, stderr, exit := r.Kubectl(t.Context(), "wait", "--for=condition=Established", "--timeout=20s", "crd/imageconfigs.pkg.crossplane.io"); exit != 0 {
		t.Fatal(stderr)
	}
}

// crossplaneConfig makes one of Crossplane's ImageConfigs that goes with the case.
func (r *room) crossplaneConfig(t *testing.T, suffix, spec string) {
	t.Helper()
	resource := r.dynamic.Resource(schema.GroupVersionResource{Group: "pkg.crossplane.io", Version: "v1beta1", Resource: "imageconfigs"})
	name := r.namespace + suffix
	object := parse(t, fmt.Sprintf("apiVersion: pkg.crossplane.io/v1beta1\nkind: ImageConfig\nmetadata: {name: %s}\nspec:%s", name, spec))
	if _, err := resource.Create(t.Context(), object, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resource.Delete(context.Background(), name, metav1.DeleteOptions{}) })
}

// revision tries a package's revision with an image.
func (r *room) revision(t *testing.T, image string) error {
	t.Helper()
	stored, err := r.crossplane("providerrevisions").Create(t.Context(), parse(t, fmt.Sprintf(
		"apiVersion: pkg.crossplane.io/v1\nkind: ProviderRevision\nmetadata: {name: %s}\nspec: {image: %q}", r.namespace, image)),
		metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err == nil && imageIn(t, stored) != image {
		t.Errorf("%s was rewritten to %s", image, imageIn(t, stored))
	}
	return err
}

// TestCrossplaneImageConfigs: the kind appears, is obeyed, disappears and appears
// again, while the server runs. Not parallel: other cases may rely on the kind
// being there, and none on its absence.
func TestCrossplaneImageConfigs(t *testing.T) {
	r := newRoom(t).at(shared.private)
	r.enforce(t)
	refused(t, r.revision(t, r.signed(t, "provider:v1").ByTag()), inconclusive, "answered 401")
	r.serveImageConfigs(t)
	t.Run("as Crossplane's documentation prints them", r.crossplaneDocument)
	t.Run("as that document says they judge", crossplaneJudges)
	t.Run("pull secret", r.crossplanePullSecret)
	t.Run("rewritten", crossplaneRewrite)
	t.Run("fail-open corners", r.crossplaneCorners)
	t.Run("the schema", func(t *testing.T) {
		_, stderr, exit := r.Apply(t.Context(), "apiVersion: pkg.crossplane.io/v1beta1\nkind: ImageConfig\nmetadata: {name: x}\nspec: {matchImages: []}\n")
		if exit == 0 || !strings.Contains(stderr, "matchImages should have at least one element.") {
			t.Errorf("%d: %s", exit, stderr)
		}
	})
	t.Run("gone", func(t *testing.T) {
		r.crossplaneConfig(t, "-held", heldByCrossplane("gone.example/"))
		r.heldByCrossplane(t, "gone.example/x:v1")
		if _, stderr, exit := r.Kubectl(t.Context(), "delete", "crd", "imageconfigs.pkg.crossplane.io"); exit != 0 {
			t.Fatal(stderr)
		}
		r.eventually(t, inForce, "its rules are gone", func(ctx context.Context) error {
			return r.try(ctx, pod("x", "gone.example/x:v1")).err
		})
		r.serveImageConfigs(t)
		r.crossplaneConfig(t, "-again", heldByCrossplane("again.example/"))
		r.heldByCrossplane(t, "again.example/x:v1")
	})
}

// heldByCrossplane is a spec that cannot be satisfied.
func heldByCrossplane(prefix string) string {
	return fmt.Sprintf("\n  matchImages: [{prefix: %s}]\n  verification: {provider: Cosign, cosign: {authorities: []}}\n", prefix)
}

// heldByCrossplane waits until an image is held back by one of Crossplane's.
func (r *room) heldByCrossplane(t *testing.T, image string) {
	t.Helper()
	r.eventually(t, inForce, image+" is held back", func(ctx context.Context) error {
		err := r.try(ctx, pod("x", image)).err
		if err == nil || !strings.Contains(err.Error(), "Inconclusive by ImageConfig.pkg.crossplane.io ") {
			return fmt.Errorf("answered %w", errors.Join(err, errors.New("not by it")))
		}
		return nil
	})
}

func (r *room) crossplaneDocument(t *testing.T) {
	root, err := env.Root()
	if err != nil {
		t.Fatal(err)
	}
	document, err := os.ReadFile(filepath.Join(root, "policy", "source", "testdata", "crossplane-document.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if _, stderr, exit := r.Apply(t.Context(), string(document)); exit != 0 {
		t.Fatal(stderr)
	}
	t.Cleanup(func() {
		_, _, _ = r.Kubectl(context.Background(), "delete", "imageconfigs.pkg.crossplane.io", "acme-packages", "verify-acme-packages")
	})
	const by = `Inconclusive by ImageConfig.pkg.crossplane.io "verify-acme-packages": `
	for _, image := range []string{
		"registry1.com/acme-co/configuration-foo:v0.2.0", "registry1.com/acme-co/configuration-bar:v1", "REGISTRY1.com:443/acme-co/configuration-foo:v1",
	} {
		r.heldByCrossplane(t, image)
		refused(t, r.revision(t, image), inconclusive, by)
	}
	for _, image := range []string{"registry1.com/acme-co/other:v1", "registry1.com.evil.io/acme-co/configuration-foo:v1"} {
		r.try(t.Context(), pod("x", image)).admitted(t, image)
	}
	// What the package makes is examined again.
	ctx, warnings := collecting(t.Context())
	_, err = r.crossplane("configurations").Create(ctx, parse(t, "apiVersion: pkg.crossplane.io/v1\nkind: Configuration\nmetadata: {name: "+
		r.namespace+"}\nspec: {package: 'registry1.com/acme-co/configuration-foo:v0.2.0'}"), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err != nil || !strings.Contains(strings.Join(warnings(), "\n"), by) {
		t.Errorf("%v, warnings %q", err, warnings())
	}
}

// Its pull secret, from Crossplane's namespace, serves whatever ours ask for.
func (r *room) crossplanePullSecret(t *testing.T) {
	first, second := r.signed(t, "pulled:v1"), r.signed(t, "pulled:v2")
	refused(t, r.revision(t, first.ByTag()), inconclusive, "answered 401")
	r.crossplaneConfig(t, "-pull", fmt.Sprintf(
		"\n  matchImages: [{prefix: %q}]\n  registry: {authentication: {pullSecretRef: {name: %s}}}\n", r.prefix(), r.namespace))
	r.eventually(t, inForce, "what is missed is told", func(context.Context) error {
		err := r.revision(t, first.ByTag())
		if err == nil || !strings.Contains(err.Error(), "crossplane-system/"+r.namespace) {
			return fmt.Errorf("answered %w", errors.Join(err, errors.New("nothing of it")))
		}
		return nil
	})
	r.dockerSecret(t, crossplaneNamespace, r.namespace, r.registry.Host(), user, password)
	t.Cleanup(func() {
		_ = r.client.CoreV1().Secrets(crossplaneNamespace).Delete(context.Background(), r.namespace, metav1.DeleteOptions{})
	})
	r.eventually(t, inForce, "a package is read with it", func(context.Context) error { return r.revision(t, second.ByTag()) })
	r.try(t.Context(), pod("x", second.ByTag())).admitted(t, second.ByBoth())
	refused(t, r.revision(t, r.unsigned(t, "pulled:v3").ByTag()), rejected, "no signature")
	if err := r.client.CoreV1().Secrets(crossplaneNamespace).Delete(t.Context(), r.namespace, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r.eventually(t, inForce, "it is not used any more", func(context.Context) error {
		if err := r.revision(t, r.signed(t, "pulled:v4").ByTag()); err == nil || !strings.Contains(err.Error(), "answered 401") {
			return fmt.Errorf("answered %w", errors.Join(err, errors.New("not 401")))
		}
		return nil
	})
}

// Where to look is judged, and nothing is written.
func crossplaneRewrite(t *testing.T) {
	in := newRoom(t)
	in.enforce(t)
	elsewhere := "elsewhere.example/" + in.namespace + "/"
	as := func(image registrytest.Image) string {
		return strings.Replace(image.ByTag(), in.prefix(), elsewhere, 1)
	}
	in.crossplaneConfig(t, "", fmt.Sprintf("\n  matchImages: [{prefix: %q}]\n  rewriteImage: {prefix: %q}\n", elsewhere, in.prefix()))
	signed, unsigned := in.signed(t, "provider:v1"), in.unsigned(t, "rogue:v1")
	in.eventually(t, inForce, "it is looked for elsewhere", func(context.Context) error {
		if err := in.revision(t, as(unsigned)); err == nil || !apierrors.IsForbidden(err) {
			return fmt.Errorf("answered %w", errors.Join(err, errors.New("not refused")))
		}
		return nil
	})
	refused(t, in.revision(t, as(unsigned)), rejected, "as "+unsigned.ByTag(), "no signature")
	if err := in.revision(t, as(signed)); err != nil {
		t.Error(err)
	}
	in.try(t.Context(), pod("x", as(signed))).admitted(t, as(signed)+"@"+signed.Digest)
}

// Where Crossplane lets in everything, or what anybody has signed, it is held back.
func (r *room) crossplaneCorners(t *testing.T) {
	for name, test := range map[string]struct{ authorities, told string }{
		"none":    {`[]`, "there are none"},
		"nobody":  {`[{name: a}]`, "neither key nor keyless"},
		"anybody": {`[{name: a, keyless: {identities: []}}]`, "there are none"},
		"anyone":  {`[{name: a, keyless: {identities: [{}]}}]`, "neither issuer nor issuerRegExp"},
		"no key":  {`[{name: a, key: {secretRef: {name: absent, key: k}}}]`, `"crossplane-system/absent" does not exist`},
	} {
		prefix := fmt.Sprintf("%s.example/%s/", strings.ReplaceAll(name, " ", "-"), r.namespace)
		r.crossplaneConfig(t, "-"+strings.ReplaceAll(name, " ", "-"), fmt.Sprintf(
			"\n  matchImages: [{prefix: %s}]\n  verification: {provider: Cosign, cosign: {authorities: %s}}\n", prefix, test.authorities))
		r.heldByCrossplane(t, prefix+"app:v1")
		r.try(t.Context(), pod("x", prefix+"app:v1")).refused(t, inconclusive, "it is not ready: ", "spec.verification.cosign.authorities", test.told)
	}
}
