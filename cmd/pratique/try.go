// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// answer is what the API server would do with a Pod.
type answer string

const (
	admitted answer = "Admitted"
	denied   answer = "Denied"
)

// Of what the API server says for a webhook (k8s.io/apiserver,
// pkg/admission/plugin/webhook/errors): one that denied, and one that could not
// be asked. Our webhooks' names end as webhook/configuration.go has them.
const (
	webhookSpoke   = `admission webhook "`
	webhookDenied  = `.pratique.dev" denied the request`
	webhookNoReply = "failed calling webhook"
)

type tryFlags struct {
	in     string
	expect answer
	wait   time.Duration
}

func newTry() *cobra.Command {
	f := &tryFlags{}
	c := &cobra.Command{
		Use:   "try IMAGE",
		Short: "Ask the API server whether it would admit a Pod with an image",
		Long: `Ask the API server whether it would admit a Pod with an image. It is asked by a
dry run, so that nothing is made; everything that examines Pods is asked, this
webhook too, as for any Pod. It takes the right to create Pods in the namespace.

What it prints for a Pod that would be admitted is the image as the API server
would have kept it: pinned and rewritten, if a rule says so.

Exit codes: 0 admitted, 1 denied by Pratique, 2 usage error or refused by
anybody else, 3 somebody who had to be asked did not answer. With --expect
Denied 0 and 1 are the other way round.`,
		Example: `  pratique try registry1.com/acme-co/app:v1 -n team
  pratique try registry1.com/acme-co/unsigned:v1 -n team --expect Denied`,
		Args: func(c *cobra.Command, images []string) error {
			if len(images) != 1 || images[0] == "" {
				return usage(c, errors.New("one image is tried at a time"))
			}
			return nil
		},
		RunE: func(c *cobra.Command, images []string) error {
			if err := f.check(); err != nil {
				return usage(c, err)
			}
			return f.run(c, images[0])
		},
	}
	flags := c.Flags()
	flags.StringVarP(&f.in, "for-namespace", "n", metav1.NamespaceDefault, "the `namespace` that the Pod would be in")
	flags.Var(newChoice(&f.expect, admitted, denied), "expect", "the answer that is success")
	flags.DurationVar(&f.wait, "timeout", askFor, "how long to wait for the answer")
	return c
}

func (f *tryFlags) check() error {
	if f.wait <= 0 {
		return fmt.Errorf("reading --timeout: %s is no time to answer in", f.wait)
	}
	return checkNamespace("-n", f.in)
}

func (f *tryFlags) run(c *cobra.Command, image string) error {
	config, err := findCluster()
	if err != nil {
		return fmt.Errorf("finding the cluster: %w", err)
	}
	config.WarningHandlerWithContext = nil
	config.WarningHandler = rest.NewWarningWriter(c.ErrOrStderr(), rest.WarningWriterOptions{Deduplicate: true})
	direct, err := client.New(config, client.Options{})
	if err != nil {
		return unconnected(config, fmt.Errorf("making a client: %w", err))
	}
	ctx, cancel := context.WithTimeout(c.Context(), f.wait)
	defer cancel()
	pod := tried(f.in, image)
	err = direct.Create(ctx, pod, client.DryRunAll)
	switch said := printable(fmt.Sprint(err)); {
	case err == nil:
		fmt.Fprintf(c.OutOrStdout(), "%s  %s\n", admitted, printable(pod.Spec.Containers[0].Image))
		return f.judge(admitted)
	case strings.Contains(said, webhookSpoke) && strings.Contains(said, webhookDenied):
		fmt.Fprintf(c.OutOrStdout(), "%s  %s: %s\n", denied, printable(image), said)
		return f.judge(denied)
	case strings.Contains(said, webhookNoReply), apierrors.IsTimeout(err), errors.Is(err, context.DeadlineExceeded):
		fmt.Fprintf(c.ErrOrStderr(), "pratique: %s: nobody knows: %s\n", printable(image), said)
		return &exitError{exitInconclusive}
	default:
		return told(config, err)
	}
}

// judge is nil if the answer is the one that was expected.
func (f *tryFlags) judge(a answer) error {
	if a == f.expect {
		return nil
	}
	return &exitError{exitRejected}
}

// tried is a Pod with the image that nothing but the image should keep out: it is
// as Pod Security's `restricted` and quotas want Pods.
func tried(namespace, image string) *corev1.Pod {
	little := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("1m"), corev1.ResourceMemory: resource.MustParse("16Mi"),
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "pratique-try-", Namespace: namespace},
		Spec: corev1.PodSpec{
			RestartPolicy:                corev1.RestartPolicyNever,
			AutomountServiceAccountToken: new(false),
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot: new(true), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{{
				Name: "tried", Image: image,
				Resources: corev1.ResourceRequirements{Requests: little, Limits: little},
				SecurityContext: &corev1.SecurityContext{
					AllowPrivilegeEscalation: new(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				},
			}},
		},
	}
}
