// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/pratique-dev/pratique/e2e/env"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

const (
	// podWithin bounds the wait for a Pod that a controller makes.
	podWithin = 20 * time.Second
	poll      = 50 * time.Millisecond
)

// story is the demo, step by step. A step that goes otherwise than it says
// ends it.
type story struct {
	*env.Env

	show   *transcript
	images images
}

func (s *story) tell(ctx context.Context) error {
	for _, step := range []func(context.Context) error{
		s.installed, s.policy, s.signed, s.deployment, s.unsigned, s.forged, s.movedTag,
		s.ephemeral, s.imageVolume, s.provider, s.audit, s.costs,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	s.show.Sayf("Everything went as said.")
	return nil
}

// kubectl shows a command, which must succeed, or must fail, and print each of
// the texts.
func (s *story) kubectl(ctx context.Context, succeeds bool, args []string, texts ...string) error {
	stdout, stderr, exit := s.Kubectl(ctx, args...)
	return s.judge(quoted("kubectl", args), stderr+stdout, succeeds == (exit == 0), texts)
}

// apply shows a manifest being applied.
func (s *story) apply(ctx context.Context, succeeds bool, manifest string, texts ...string) error {
	manifest = strings.TrimSpace(manifest)
	stdout, stderr, exit := s.Apply(ctx, manifest)
	return s.judge("kubectl apply -f - <<EOF\n"+manifest+"\nEOF", stderr+stdout, succeeds == (exit == 0), texts)
}

func (s *story) judge(command, output string, asSaid bool, texts []string) error {
	s.show.Command(command, output)
	if !asSaid {
		return fmt.Errorf("that command should have ended otherwise: %s", command)
	}
	for _, text := range texts {
		if !strings.Contains(output, text) {
			return fmt.Errorf("it should have printed %q: %s", text, command)
		}
	}
	return nil
}

// quoted writes a command as one types it.
func quoted(name string, args []string) string {
	words := []string{name}
	for _, arg := range args {
		if strings.ContainsAny(arg, " {}[]$\"*?") {
			arg = "'" + arg + "'"
		}
		words = append(words, arg)
	}
	return strings.Join(words, " ")
}

// installed shows what was applied before the first step.
func (s *story) installed(ctx context.Context) error {
	s.show.Sayf("Installed as an admin would: the CRD of ImageConfigs, Pratique's namespace, its ServiceAccount with its rights, and")
	s.show.Sayf("the webhook configurations. pratique serve has no rights but those.")
	s.show.Sayf("Pods are sent to /mutate; they, workloads and Crossplane's packages to /validate.")
	return s.kubectl(ctx, true, []string{
		"get", "crd/imageconfigs.pratique.dev", "namespace/" + env.Namespace, "clusterrole/pratique",
		"mutatingwebhookconfiguration/pratique", "validatingwebhookconfiguration/pratique", "-o", "name",
	})
}

func (s *story) policy(ctx context.Context) error {
	s.show.Title("A policy: what lies under acme/ must be signed by one key")
	manifest := fmt.Sprintf(`
apiVersion: v1
kind: Secret
metadata: {name: acme-release, namespace: %s}
stringData:
  cosign.pub: |
%s
---
apiVersion: pratique.dev/v1alpha1
kind: ImageConfig
metadata: {name: acme}
spec:
  matchImages:
  - prefix: %s/acme/
  verification:
    provider: Cosign
    cosign:
      authorities:
      - name: release
        key: {secretRef: {name: acme-release, key: cosign.pub}}
`, env.Namespace, indent(s.images.key.PublicPEM(), "    "), s.Registry.Host())
	if err := s.apply(ctx, true, manifest, "imageconfig.pratique.dev/acme created"); err != nil {
		return err
	}
	if err := s.AwaitPolicy(ctx, true, "acme"); err != nil {
		return err
	}
	return s.kubectl(ctx, true, []string{"get", "imageconfig", "acme"}, "True", "Enforce")
}

func indent(text, by string) string {
	return by + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n"+by)
}

// imageOf is the jsonpath of a Pod's first image.
const imageOf = "jsonpath={.spec.containers[0].image}{\"\\n\"}"

func (s *story) signed(ctx context.Context) error {
	s.show.Title("A signed image is admitted, and pinned to the digest that was verified")
	image := s.images.signed
	if err := s.kubectl(ctx, true, []string{"run", "shop", "--image", image.ByTag()}, "pod/shop created"); err != nil {
		return err
	}
	if err := s.kubectl(ctx, true, []string{"get", "pod", "shop", "-o", imageOf}, image.ByBoth()); err != nil {
		return err
	}
	s.show.Sayf("This one is an index of two platforms, signed with a bundle as cosign 3 makes them.")
	image = s.images.bundle
	if err := s.kubectl(ctx, true, []string{"run", "cart", "--image", image.ByTag()}, "pod/cart created"); err != nil {
		return err
	}
	return s.kubectl(ctx, true, []string{"get", "pod", "cart", "-o", imageOf}, image.ByBoth())
}

func (s *story) deployment(ctx context.Context) error {
	s.show.Title("Through a Deployment: it stays as it is in Git, the Pod that its controller makes is pinned")
	image := s.images.signed
	if err := s.kubectl(ctx, true, []string{"create", "deployment", "shop", "--image", image.ByTag()}, "created"); err != nil {
		return err
	}
	pods := []string{"get", "pods", "-l", "app=shop", "-o", "jsonpath={.items[*].spec.containers[0].image}{\"\\n\"}"}
	err := wait.PollUntilContextTimeout(ctx, poll, podWithin, true, func(ctx context.Context) (bool, error) {
		stdout, _, _ := s.Kubectl(ctx, pods...)
		return strings.TrimSpace(stdout) != "", nil
	})
	if err != nil {
		return fmt.Errorf("waiting for the Deployment's Pod: %w", err)
	}
	template := "jsonpath={.spec.template.spec.containers[0].image}{\"\\n\"}"
	if err := s.kubectl(ctx, true, []string{"get", "deployment", "shop", "-o", template}, image.ByTag()+"\n"); err != nil {
		return err
	}
	return s.kubectl(ctx, true, pods, image.ByBoth())
}

func (s *story) unsigned(ctx context.Context) error {
	s.show.Title("An unsigned image is refused, with the reason")
	image := s.images.unsigned
	if err := s.kubectl(ctx, false, []string{"run", "rogue", "--image", image.ByTag()},
		`denied the request`, `Rejected by ImageConfig "acme": no signature`); err != nil {
		return err
	}
	if err := s.kubectl(ctx, false, []string{"create", "deployment", "rogue", "--image", image.ByTag()},
		`spec.template.spec.containers[0].image`, "no signature"); err != nil {
		return err
	}
	s.show.Sayf("The hint is a command. It asks the registry itself, by the ImageConfigs of the same cluster. Here it takes two")
	s.show.Sayf("flags more, as it took for the server: this registry is on this machine, and speaks plain HTTP.")
	return s.pratique(ctx, 1, s.verifying(image), "Rejected", image.Digest, "ImageConfig/acme", "no signature")
}

// verifying are the arguments by which pratique examines an image of the
// demo's registry.
func (s *story) verifying(image registrytest.Image) []string {
	return []string{
		"verify", image.ByTag(), "--registry-allow-cidrs", "127.0.0.0/8", "--insecure-registries", s.Registry.Host(),
	}
}

func (s *story) forged(ctx context.Context) error {
	s.show.Title("An image signed by another key is refused")
	return s.kubectl(ctx, false, []string{"run", "forged", "--image", s.images.forged.ByTag()},
		`authority "release": no signature matches its key (1 found)`)
}

func (s *story) movedTag(ctx context.Context) error {
	s.show.Title("A tag that moves brings nothing unverified in")
	image := s.images.moving
	if err := s.kubectl(ctx, true, []string{"run", "before", "--image", image.ByTag()}, "created"); err != nil {
		return err
	}
	s.Registry.Tag(&cleanup{}, image.Repository, image.Tag, s.images.moved.Digest)
	s.show.Sayf("Now somebody points the tag at an image without a signature, while the verdict is cached.")
	s.show.Sayf("What is pinned is the digest that was verified, for as long as the tag is remembered (30 s):")
	if err := s.kubectl(ctx, true, []string{"run", "after", "--image", image.ByTag()}, "created"); err != nil {
		return err
	}
	if err := s.kubectl(ctx, true, []string{"get", "pod", "after", "-o", imageOf}, image.Digest); err != nil {
		return err
	}
	s.show.Sayf("Who asks afresh is told what the tag names now. When the 30 s are over the webhook says the same, and refuses it:")
	return s.pratique(ctx, 1, s.verifying(image), "Rejected", s.images.moved.Digest)
}

// pratique shows the program's own command line.
func (s *story) pratique(ctx context.Context, exit int, args []string, texts ...string) error {
	command := exec.CommandContext(ctx, s.Binary, args...)
	command.Env = append(command.Environ(), "KUBECONFIG="+s.Kubeconfig)
	output, _ := command.CombinedOutput() // the exit code tells
	return s.judge(quoted("pratique", args), string(output), command.ProcessState.ExitCode() == exit, texts)
}

func (s *story) ephemeral(ctx context.Context) error {
	s.show.Title("kubectl debug with an unsigned image is refused")
	return s.kubectl(ctx, false, []string{"debug", "shop", "--attach=false", "--container=debugger", "--image", s.images.unsigned.ByTag()},
		"spec.ephemeralContainers[0].image", "no signature")
}

func (s *story) imageVolume(ctx context.Context) error {
	s.show.Title("An unsigned image as a volume is refused")
	return s.apply(ctx, false, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: smuggler}
spec:
  containers:
  - {name: shop, image: %q, volumeMounts: [{name: cargo, mountPath: /cargo}]}
  volumes:
  - {name: cargo, image: {reference: %q}}
`, s.images.signed.ByTag(), s.images.unsigned.ByTag()), "spec.volumes[0].image.reference", "no signature")
}

// providerCRD is as much of Crossplane's Provider as the story needs.
const providerCRD = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: providers.pkg.crossplane.io}
spec:
  group: pkg.crossplane.io
  names: {kind: Provider, plural: providers, singular: provider}
  scope: Cluster
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, properties: {package: {type: string}}}
`

func (s *story) provider(ctx context.Context) error {
	s.show.Title("Crossplane packages: a signed Provider is admitted as it is, an unsigned one refused")
	s.show.Sayf("There is no Crossplane here. The CRD of its Providers is applied now, cut down to what this step needs.")
	if _, stderr, exit := s.Apply(ctx, providerCRD); exit != 0 {
		return fmt.Errorf("applying Crossplane's CRD: %s", stderr)
	}
	if _, stderr, exit := s.Kubectl(ctx, "wait", "--for=condition=Established", "--timeout=10s",
		"crd/providers.pkg.crossplane.io"); exit != 0 {
		return fmt.Errorf("waiting for Crossplane's CRD: %s", stderr)
	}
	manifest := `
apiVersion: pkg.crossplane.io/v1
kind: Provider
metadata: {name: %s}
spec: {package: %q}
`
	signed := s.images.provider.ByTag()
	if err := s.apply(ctx, true, fmt.Sprintf(manifest, "ships", signed), "created"); err != nil {
		return err
	}
	if err := s.kubectl(ctx, true, []string{"get", "provider", "ships", "-o", "jsonpath={.spec.package}{\"\\n\"}"}, signed+"\n"); err != nil {
		return err
	}
	return s.apply(ctx, false, fmt.Sprintf(manifest, "rogue", s.images.unsigned.ByTag()), "spec.package", "no signature")
}

func (s *story) audit(ctx context.Context) error {
	s.show.Title("In Audit the same verdicts are warnings")
	if err := s.kubectl(ctx, true, []string{
		"patch", "imageconfig", "acme", "--type=merge", "-p", `{"spec":{"mode":"Audit"}}`,
	}, "patched"); err != nil {
		return err
	}
	if err := s.AwaitPolicy(ctx, true, "acme"); err != nil {
		return err
	}
	if err := s.kubectl(ctx, true, []string{"run", "rogue", "--image", s.images.unsigned.ByTag()},
		"Warning:", `Rejected by ImageConfig "acme": no signature`, "pod/rogue created"); err != nil {
		return err
	}
	if err := s.kubectl(ctx, true, []string{"run", "forged", "--image", s.images.forged.ByTag()},
		"Warning:", "no signature matches its key (1 found)", "pod/forged created"); err != nil {
		return err
	}
	s.show.Sayf("From here on the ImageConfig is back in Enforce.")
	if _, stderr, exit := s.Kubectl(ctx, "patch", "imageconfig", "acme", "--type=merge", "-p", `{"spec":{"mode":"Enforce"}}`); exit != 0 {
		return fmt.Errorf("going back to Enforce: %s", stderr)
	}
	return s.AwaitPolicy(ctx, true, "acme")
}
