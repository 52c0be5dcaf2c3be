// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"

	"github.com/pratique-dev/pratique/registry/registrytest"
)

// keep says how to go on by hand, and waits until ctx ends.
func (s *story) keep(ctx context.Context) {
	out := s.show.out
	fmt.Fprintf(out, `
It goes on running until you end it: Ctrl-C, or kill %d. In another terminal:

  export KUBECONFIG=%s
  alias kubectl='%s kubectl'
  alias pratique='%s'

  kubectl run mine --image %s
  kubectl get imageconfig acme -o yaml
  %s

`, os.Getpid(), s.Kubeconfig, s.KubectlCommand(ctx).Path, s.Binary,
		s.images.signed.ByTag(), quoted("pratique", s.verifying(s.images.unsigned)))
	for _, image := range []struct {
		registrytest.Image

		is string
	}{
		{s.images.signed, "signed, as cosign 2 does it (.sig)"},
		{s.images.bundle, "signed, as cosign 3 does it (bundle); an index of two platforms"},
		{s.images.unsigned, "not signed"},
		{s.images.forged, "signed by another key"},
		{s.images.moving, "its tag was moved to an image that is not signed: refused once the 30 s are over"},
		{s.images.provider, "signed, stands for a Crossplane package"},
	} {
		fmt.Fprintf(out, "  %-40s %s\n", image.ByTag(), image.is)
	}
	fmt.Fprintf(out, `
There is no node: Pods are admitted and stay Pending. All logs are in %s.
`, s.Dir)
	<-ctx.Done()
	fmt.Fprintln(out)
}
