// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cases_test

import (
	"fmt"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// rewritten is a spec that moves images from a host that is not there to the
// room's part of its registry.
func (r *room) rewritten(target string) string {
	return fmt.Sprintf(`
  matchImages: [{prefix: %q}]
  rewriteImage: {prefix: %q, target: %s}
`, r.elsewhere(), r.prefix(), target)
}

// elsewhere is the prefix of images that only a rewrite finds.
func (r *room) elsewhere() string { return r.namespace + ".invalid/" }

// TestRewritePods: what stays as it is in Git makes Pods that run from the
// mirror, once and whoever makes them.
func TestRewritePods(t *testing.T) {
	t.Parallel()
	r := newRoom(t)
	r.enforce(t)
	name := r.policy(t, "-mirror", r.rewritten("Pod"))
	signed, unsigned := r.signed(t, "app:v1"), r.unsigned(t, "unsigned:v1")
	r.create(t.Context(), pod("direct", r.elsewhere()+"app:v1")).admitted(t, signed.ByBoth())
	r.create(t.Context(), pod("digest", r.elsewhere()+"app@"+signed.Digest)).admitted(t, signed.ByDigest())
	r.try(t.Context(), pod("unsigned", r.elsewhere()+"unsigned:v1")).refused(t, rejected, unsigned.ByBoth(), "no signature")

	deployment := parse(t, fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec: {selector: {matchLabels: {app: x}}, template: {metadata: {labels: {app: x}}, spec: {containers: [{name: main, image: %q}]}}}
`, r.elsewhere()+"app:v1"))
	resource := schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}
	stored, err := r.dynamic.Resource(resource).Namespace(r.namespace).Create(t.Context(), deployment, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if image := imageIn(t, stored); image != r.elsewhere()+"app:v1" {
		t.Errorf("the Deployment was rewritten to %q", image)
	}
	r.awaitPods(t, "app=x", signed.ByBoth())

	// A rewritten name that is rewritten again: which one is meant?
	again := r.unreadyPolicy(t, "-again", fmt.Sprintf(`
  matchImages: [{prefix: %q}]
  rewriteImage: {prefix: %q}
`, r.prefix(), r.namespace+"-again.invalid/"))
	r.awaitReady(t, name, metav1.ConditionFalse, "Conflict")
	r.awaitReady(t, again, metav1.ConditionTrue, "Compiled")
	r.try(t.Context(), pod("held", r.elsewhere()+"app:v1")).refused(t, inconclusive, `"`+again+`" rewrites again`)
}

// TestRewriteLookups: nodes with mirrors pull by the old name what was verified
// at the mirror.
func TestRewriteLookups(t *testing.T) {
	t.Parallel()
	r := newRoom(t)
	// One ImageConfig says where images are and who must have signed them.
	r.policy(t, "", keyed(r.elsewhere(), r.key, fmt.Sprintf("  rewriteImage: {prefix: %q, target: Lookup}", r.prefix())))
	signed := r.signed(t, "app:v1")
	r.unsigned(t, "unsigned:v1")
	r.create(t.Context(), pod("signed", r.elsewhere()+"app:v1")).admitted(t, r.elsewhere()+"app:v1@"+signed.Digest)
	r.try(t.Context(), pod("unsigned", r.elsewhere()+"unsigned:v1")).refused(t, rejected, r.elsewhere()+"unsigned:v1", "no signature")
	r.try(t.Context(), pod("mirror", r.prefix()+"unsigned:v1")).refused(t, rejected, "no signature")
}
