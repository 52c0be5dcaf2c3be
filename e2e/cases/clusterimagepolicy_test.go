// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cases_test

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/pratique-dev/pratique/e2e/env"
	"github.com/pratique-dev/pratique/e2e/signer"
	"github.com/pratique-dev/pratique/e2e/signer/cosign2"
	"github.com/pratique-dev/pratique/e2e/signer/cosign3"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

//go:embed testdata/policy.sigstore.dev.yaml
var policyControllerKinds string

const (
	policyControllerNamespace = "cosign-system"
	// policyControllerRights is the file in deploy/rbac that only it needs.
	policyControllerRights = "policy-controller.yaml"
	// included is the label of the namespaces that its policies govern.
	included = "policy.sigstore.dev/include=true"
	// unmatched is what is said of an image that none of them matches.
	unmatched = "no ClusterImagePolicy matches it"
)

// preparePolicyController makes policy-controller's namespace, and gives Pratique
// its rights there. The kinds come with TestClusterImagePolicies.
func (w *world) preparePolicyController(ctx context.Context) error {
	root, err := env.Root()
	if err != nil {
		return err
	}
	for _, command := range [][]string{
		{"create", "namespace", policyControllerNamespace}, {"apply", "-f", filepath.Join(root, "deploy", "rbac", policyControllerRights)},
	} {
		if _, stderr, exit := w.Kubectl(ctx, command...); exit != 0 {
			return fmt.Errorf("preparing policy-controller's namespace: %s", stderr)
		}
	}
	return nil
}

// servePolicyController makes policy-controller's kinds known to the API server.
func (r *room) servePolicyController(t *testing.T) {
	t.Helper()
	if _, stderr, exit := r.Apply(t.Context(), policyControllerKinds); exit != 0 {
		t.Fatal(stderr)
	}
	if _, stderr, exit := r.Kubectl(t.Context(), "wait", "--for=condition=Established", "--timeout=20s",
		"crd/clusterimagepolicies.policy.sigstore.dev", "crd/trustroots.policy.sigstore.dev"); exit != 0 {
		t.Fatal(stderr)
	}
}

// sigstoreObject makes or replaces one of policy-controller's objects, which goes
// with the case. Its name begins with the namespace's.
func (r *room) sigstoreObject(t *testing.T, kind, suffix, spec string) (name string) {
	t.Helper()
	name = r.namespace + suffix
	version, resource := "v1beta1", "clusterimagepolicies"
	if kind == "TrustRoot" {
		version, resource = "v1alpha1", "trustroots"
	}
	manifest := fmt.Sprintf("apiVersion: policy.sigstore.dev/%s\nkind: %s\nmetadata: {name: %s}\nspec:%s", version, kind, name, spec)
	if _, stderr, exit := r.Apply(t.Context(), manifest); exit != 0 {
		t.Fatalf("%s in\n%s", stderr, manifest)
	}
	objects := r.dynamic.Resource(schema.GroupVersionResource{Group: "policy.sigstore.dev", Version: version, Resource: resource})
	t.Cleanup(func() { _ = objects.Delete(context.Background(), name, metav1.DeleteOptions{}) })
	return name
}

// cip makes or replaces a ClusterImagePolicy about the room's images.
func (r *room) cip(t *testing.T, suffix, authorities string, more ...string) (name string) {
	t.Helper()
	return r.sigstoreObject(t, "ClusterImagePolicy", suffix, fmt.Sprintf("\n  images: [{glob: %q}]\n  authorities: [%s]\n%s",
		r.prefix()+"**", authorities, strings.Join(more, "\n")))
}

// byKey is an authority.
func byKey(name string, key signer.Key) string {
	return fmt.Sprintf("{name: %s, key: {data: %q}}", name, key.PublicPEM)
}

const (
	passes = "{name: all, static: {action: pass}}"
	fails  = "{name: nobody, static: {action: fail, message: not here}}"
)

// says waits until an attempt is refused, and for all these reasons; without any
// until it is granted.
func (r *room) says(t *testing.T, attempt func(context.Context) error, texts ...string) {
	t.Helper()
	r.eventually(t, inForce, fmt.Sprintf("the answer has %q", texts), func(ctx context.Context) error {
		err := attempt(ctx)
		if err == nil && len(texts) > 0 {
			return errors.New("granted")
		}
		if err != nil && len(texts) == 0 {
			return err
		}
		for _, text := range texts {
			if !strings.Contains(err.Error(), text) {
				return fmt.Errorf("it lacks %q: %w", text, err)
			}
		}
		return nil
	})
}

// attempt tries a Pod.
func (r *room) attempt(p *corev1.Pod) func(context.Context) error {
	return func(ctx context.Context) error { return r.try(ctx, p.DeepCopy()).err }
}

// cosigned pushes an image and signs it.
func (r *room) cosigned(t *testing.T, written string, sign signer.Func, keys ...signer.Key) registrytest.Image {
	t.Helper()
	image := r.unsigned(t, written)
	for _, key := range keys {
		if err := sign(t.Context(), key, image.ByDigest(), nil); err != nil {
			t.Fatal(err)
		}
	}
	return image
}

func newKey(t *testing.T) signer.Key {
	t.Helper()
	key, err := signer.GenerateKeyPair(t.TempDir(), "secret")
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func labelled(p *corev1.Pod, name, value string) *corev1.Pod {
	p.Labels = map[string]string{name: value}
	return p
}

// TestClusterImagePolicies: a cluster moves over from policy-controller by
// swapping the webhook. Not parallel: its setting and its kinds are the whole
// cluster's, and the case ends as it began but that the kinds are served.
func TestClusterImagePolicies(t *testing.T) {
	r := newRoom(t, included)
	bare := r.unsigned(t, "bare:v1")
	r.try(t.Context(), pod("x", bare.ByTag())).admitted(t, bare.ByTag())
	r.servePolicyController(t)
	r.says(t, r.attempt(pod("x", bare.ByTag())), unmatched)
	t.Run("signed", clusterPolicySigned)
	t.Run("modes", clusterPolicyModes)
	t.Run("several", clusterPolicySeveral)
	t.Run("no match", clusterPolicyNoMatch)
	t.Run("match", clusterPolicyMatch)
	t.Run("key in a Secret", clusterPolicySecret)
	t.Run("metadata", clusterPolicyMetadata)
	t.Run("on its way out", clusterPolicyOut)
	t.Run("spec", clusterPolicySpec)
	t.Run("config", clusterPolicyConfig)
	t.Run("authorities", clusterPolicyAuthorities)
	t.Run("policy in a ConfigMap", clusterPolicyConfigMap)
	t.Run("beside an ImageConfig", clusterPolicyBeside)
	t.Run("mistaken", clusterPolicyMistaken)
	t.Run("attestations", clusterPolicyAttestations)
	t.Run("signatures elsewhere", clusterPolicyElsewhere)
	t.Run("TrustRoot", clusterPolicyTrustRoot)
	t.Run("all namespaces", clusterPolicyEverywhere)
	t.Run("one version", clusterPolicyVersion)
	t.Run("gone", func(t *testing.T) {
		r.cip(t, "", fails)
		r.says(t, r.attempt(pod("x", bare.ByTag())), "not here")
		for _, crd := range []string{"clusterimagepolicies", "trustroots"} {
			if _, stderr, exit := r.Kubectl(t.Context(), "delete", "crd", crd+".policy.sigstore.dev"); exit != 0 {
				t.Fatal(stderr)
			}
		}
		r.says(t, r.attempt(pod("x", bare.ByTag())))
		r.servePolicyController(t)
		r.says(t, r.attempt(pod("x", bare.ByTag())), unmatched)
		r.cip(t, "-again", fails)
		r.says(t, r.attempt(pod("x", bare.ByTag())), "not here")
	})
}

// What is signed is admitted, and what is not is refused, in namespaces that carry
// the label.
func clusterPolicySigned(t *testing.T) {
	r, outside := newRoom(t, included), newRoom(t)
	key, other := newKey(t), newKey(t)
	name := r.cip(t, "", byKey("release", key))
	for version, sign := range map[string]signer.Func{"two": cosign2.Sign, "three": cosign3.Sign} {
		good := r.cosigned(t, version+":v1", sign, key)
		r.says(t, r.attempt(pod("x", good.ByTag())))
		r.create(t.Context(), pod(version, good.ByTag())).admitted(t, good.ByBoth())
		r.try(t.Context(), pod("x", good.ByDigest())).admitted(t, good.ByDigest())
		r.try(t.Context(), pod("x", r.cosigned(t, version+"-forged:v1", sign, other).ByTag())).refused(t, rejected,
			"Rejected by ClusterImagePolicy", name, `authority "release"`)
	}
	bare := r.unsigned(t, "bare:v1")
	r.try(t.Context(), pod("x", bare.ByTag())).refused(t, rejected, bare.ByBoth(), "Rejected by ClusterImagePolicy", name, "no signature")
	outside.try(t.Context(), pod("x", bare.ByTag())).admitted(t, bare.ByTag())
	// The label is added, and taken away.
	relabel := func(change string) {
		t.Helper()
		if _, stderr, exit := r.Kubectl(t.Context(), "label", "namespace", outside.namespace, change); exit != 0 {
			t.Fatal(stderr)
		}
	}
	relabel(included)
	r.says(t, outside.attempt(pod("x", bare.ByTag())), name)
	relabel(strings.TrimSuffix(included, "=true") + "-")
	r.says(t, outside.attempt(pod("x", bare.ByTag())))
}

// mode: warn, in place of enforce.
func clusterPolicyModes(t *testing.T) {
	r := newRoom(t, included)
	name := r.cip(t, "", byKey("release", newKey(t)), "  mode: warn")
	bare := r.unsigned(t, "bare:v1")
	r.says(t, r.attempt(pod("x", bare.ByTag())))
	r.try(t.Context(), pod("x", bare.ByTag())).warned(t, []string{bare.ByTag()}, name, "no signature")
	r.cip(t, "", byKey("release", newKey(t)), "  mode: enforce")
	r.says(t, r.attempt(pod("x", bare.ByTag())), name, "no signature")
}

// All policies that match must accept; in one any authority is enough.
func clusterPolicySeveral(t *testing.T) {
	r := newRoom(t, included)
	one, two := newKey(t), newKey(t)
	first := r.cip(t, "-one", byKey("one", one)+", "+byKey("nobody", newKey(t)))
	both, half := r.cosigned(t, "both:v1", cosign3.Sign, one, two), r.cosigned(t, "half:v1", cosign3.Sign, one)
	r.says(t, r.attempt(pod("x", half.ByTag())))
	second := r.cip(t, "-two", byKey("two", two))
	r.says(t, r.attempt(pod("x", half.ByTag())), "Rejected by ClusterImagePolicy", second)
	r.try(t.Context(), pod("x", both.ByTag())).admitted(t, both.ByBoth())
	r.try(t.Context(), pod("x", r.unsigned(t, "bare:v1").ByTag())).refused(t, rejected, first)
}

// What no policy matches goes by policy-controller's own setting.
func clusterPolicyNoMatch(t *testing.T) {
	r := newRoom(t, included)
	image := r.unsigned(t, "app:v1")
	x := pod("x", image.ByTag())
	r.try(t.Context(), x.DeepCopy()).refused(t, rejected, unmatched, "by default")
	configs := r.client.CoreV1().ConfigMaps(policyControllerNamespace)
	config := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "config-policy-controller"}, Data: map[string]string{"no-match-policy": "warn"}}
	if _, err := configs.Create(t.Context(), config, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = configs.Delete(context.Background(), config.Name, metav1.DeleteOptions{}) })
	set := func(value string) {
		t.Helper()
		config.Data["no-match-policy"] = value
		if _, err := configs.Update(t.Context(), config, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	r.says(t, r.attempt(x))
	r.try(t.Context(), x.DeepCopy()).warned(t, []string{image.ByTag()}, unmatched)
	set("allow")
	r.eventually(t, inForce, "nothing is said any more", func(ctx context.Context) error {
		if a := r.try(ctx, x.DeepCopy()); a.err != nil || len(a.warnings) > 0 {
			return fmt.Errorf("%q, %w", a.warnings, a.err)
		}
		return nil
	})
	// Only two words let anything in.
	for _, value := range []string{"Allow", "deny", ""} {
		set(value)
		r.says(t, r.attempt(x), unmatched)
		set("allow")
		r.says(t, r.attempt(x))
	}
	if err := configs.Delete(t.Context(), config.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r.says(t, r.attempt(x), unmatched, "by default")
}

// A policy may be for some kinds of objects, and for some of their labels.
func clusterPolicyMatch(t *testing.T) {
	r := newRoom(t, included)
	image := r.unsigned(t, "app:v1")
	r.cip(t, "", passes)
	r.says(t, r.attempt(pod("x", image.ByTag())))
	gold := func() *corev1.Pod { return labelled(pod("x", image.ByTag()), "tier", "gold") }
	r.try(t.Context(), gold()).admitted(t, image.ByTag())
	r.cip(t, "-gold", fails, `  match: [{resource: pods, version: v1, selector: {matchLabels: {tier: gold}}}]`)
	r.says(t, r.attempt(gold()), "not here")
	r.try(t.Context(), pod("x", image.ByTag())).admitted(t, image.ByTag())
	r.try(t.Context(), labelled(pod("x", image.ByTag()), "tier", "tin")).admitted(t, image.ByTag())
	set := func() (string, bool) {
		return r.kubectl(t, "create", "deployment", "x", "--image", image.ByTag(), "--dry-run=server")
	}
	if output, ok := set(); !ok {
		t.Error(output)
	}
	r.cip(t, "-sets", fails, `  match: [{resource: deployments, group: apps, version: "*"}]`)
	r.eventually(t, inForce, "Deployments are refused", func(context.Context) error {
		if output, ok := set(); ok || !strings.Contains(output, "not here") {
			return errors.New(output)
		}
		return nil
	})
	r.try(t.Context(), pod("x", image.ByTag())).admitted(t, image.ByTag())
}

// Keys are read in policy-controller's namespace, and changed with their Secrets.
func clusterPolicySecret(t *testing.T) {
	r := newRoom(t, included)
	key, other := newKey(t), newKey(t)
	image := r.cosigned(t, "app:v1", cosign2.Sign, key)
	name := r.cip(t, "", fmt.Sprintf("{name: release, key: {secretRef: {name: %s}}}", r.namespace))
	r.says(t, r.attempt(pod("x", image.ByTag())), "Inconclusive by ClusterImagePolicy", name, "does not exist", policyControllerNamespace)
	secrets := r.client.CoreV1().Secrets(policyControllerNamespace)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: r.namespace}, Data: map[string][]byte{"cosign.pub": []byte(key.PublicPEM)}}
	if _, err := secrets.Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = secrets.Delete(context.Background(), secret.Name, metav1.DeleteOptions{}) })
	r.says(t, r.attempt(pod("x", image.ByTag())))
	r.try(t.Context(), pod("x", r.unsigned(t, "bare:v1").ByTag())).refused(t, rejected, name, "no signature")
	secret.Data = map[string][]byte{"cosign.pub": []byte(other.PublicPEM)}
	if _, err := secrets.Update(t.Context(), secret, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	r.says(t, r.attempt(pod("x", image.ByTag())), "Rejected by ClusterImagePolicy", name, "no signature matches its key")
	if err := secrets.Delete(t.Context(), secret.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r.says(t, r.attempt(pod("x", image.ByTag())), "Inconclusive by ClusterImagePolicy", "does not exist")
}

// An ImageConfig about the same images must accept them as well.
func clusterPolicyBeside(t *testing.T) {
	r := newRoom(t, included)
	key, ours := newKey(t), newKey(t)
	both, theirs := r.cosigned(t, "both:v1", cosign2.Sign, key, ours), r.cosigned(t, "theirs:v1", cosign2.Sign, key)
	alone := r.cosigned(t, "ours:v1", cosign2.Sign, ours)
	name := r.cip(t, "", byKey("release", key))
	r.says(t, r.attempt(pod("x", theirs.ByTag())))
	config := r.policy(t, "-config", fmt.Sprintf(`
  matchImages: [{prefix: %q}]
  verification: {provider: Cosign, cosign: {authorities: [{name: ours, key: {data: %q}}]}}`, r.prefix(), ours.PublicPEM))
	r.try(t.Context(), pod("x", theirs.ByTag())).refused(t, rejected, "Rejected by ImageConfig", config)
	r.try(t.Context(), pod("x", alone.ByTag())).refused(t, rejected, "Rejected by ClusterImagePolicy", name)
	r.try(t.Context(), pod("x", both.ByTag())).admitted(t, both.ByBoth())
}

// What cannot be read as it may have been meant holds back what it is about.
func clusterPolicyMistaken(t *testing.T) {
	r := newRoom(t, included)
	image := r.unsigned(t, "app:v1")
	for told, more := range map[string]string{
		`unknown field "modes"`: "  modes: warn",
		"spec.policy":           "  policy: {type: rego, data: 'package sigstore'}",
		"spec.policy.remote":    "  policy: {type: rego, remote: {url: 'https://policies.example/x', sha256sum: " + strings.Repeat("a", 64) + "}}",
	} {
		name := r.cip(t, "", passes, more)
		r.says(t, r.attempt(pod("x", image.ByTag())), "Inconclusive by ClusterImagePolicy", name, "it is not ready: ", told)
	}
	// The same in the version that policy-controller stores.
	r.cip(t, "", passes)
	r.says(t, r.attempt(pod("x", image.ByTag())))
	if _, stderr, exit := r.Apply(t.Context(), fmt.Sprintf("apiVersion: policy.sigstore.dev/v1alpha1\nkind: ClusterImagePolicy\n"+
		"metadata: {name: %s}\nspec: {images: [{glob: %q}], authorities: [%s]}\n", r.namespace, r.prefix()+"**", fails)); exit != 0 {
		t.Fatal(stderr)
	}
	r.says(t, r.attempt(pod("x", image.ByTag())), "not here")
}

// --cip-namespaces=All leaves out no namespace, whatever its labels are.
func clusterPolicyEverywhere(t *testing.T) {
	r := newRoom(t, env.OtherServer+"=everywhere")
	image := r.unsigned(t, "app:v1")
	r.beside(t, env.ServerOptions{Name: "everywhere", Args: []string{"--cip-namespaces=All"}})
	r.says(t, r.attempt(pod("x", image.ByTag())), unmatched)
	name := r.cip(t, "", byKey("release", newKey(t)))
	r.says(t, r.attempt(pod("x", image.ByTag())), "Rejected by ClusterImagePolicy", name)
}

// A version that is served no more takes no policy out of force.
func clusterPolicyVersion(t *testing.T) {
	r := newRoom(t, included)
	image := r.unsigned(t, "app:v1")
	r.cip(t, "", fails)
	r.says(t, r.attempt(pod("x", image.ByTag())), "not here")
	const crd = "crd/clusterimagepolicies.policy.sigstore.dev"
	serve := func(alpha bool) {
		t.Helper()
		if _, stderr, exit := r.Kubectl(t.Context(), "patch", crd, "--type=json", "--patch",
			fmt.Sprintf(`[{"op": "replace", "path": "/spec/versions/0/served", "value": %t}]`, alpha)); exit != 0 {
			t.Fatal(stderr)
		}
	}
	t.Cleanup(func() { _, _, _ = r.Apply(context.Background(), policyControllerKinds) })
	serve(false)
	r.eventually(t, settled, "v1alpha1 is not served", func(ctx context.Context) error {
		_, stderr, exit := r.Kubectl(ctx, "get", "--raw", "/apis/policy.sigstore.dev/v1alpha1/clusterimagepolicies")
		if exit == 0 {
			return errors.New("it is")
		}
		if !strings.Contains(stderr, "NotFound") {
			return errors.New(stderr)
		}
		return nil
	})
	r.try(t.Context(), pod("x", image.ByTag())).refused(t, rejected, "not here")
	r.cip(t, "", passes)
	r.says(t, r.attempt(pod("x", image.ByTag())))
	serve(true)
	r.cip(t, "", fails)
	r.says(t, r.attempt(pod("x", image.ByTag())), "not here")
}
