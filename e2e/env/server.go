// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package env

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/pratique-dev/pratique/e2e/cluster"
	"github.com/pratique-dev/pratique/webhook"
)

// OtherServer is the label by which a namespace says which server governs it:
// the value is a ServerOptions.Name. Without it, the Env's own does.
const OtherServer = "e2e.pratique.dev/server"

// Unchecked is a label of ImageConfigs that come in as they are, as they do while
// no server checks them.
const Unchecked = "e2e.pratique.dev/unchecked"

// envProgram runs a program with other variables, and becomes it.
const envProgram = "/usr/bin/env"

// ServerOptions say how a further server runs.
type ServerOptions struct {
	// Name is what it is called: its log is in <Name>.log, its webhook
	// configurations have that name.
	Name string
	// Args are further flags of pratique serve.
	Args []string
	// Environment are further variables, as NAME=value; those named in Unset are
	// taken away. KUBECONFIG is Env.Account.
	Environment []string
	Unset       []string
	// Known says that it serves at Env.Caller's address: the only one at which
	// the API server shows its certificate. One server at a time can.
	Known bool
	// Spare leaves out calls for what changes no image. It must be off where
	// policies look at objects.
	Spare bool
}

// Server is one pratique serve.
type Server struct {
	// Name is that of its options.
	Name string
	// Address of the webhook and Health of the probes, as host:port.
	Address, Health string
	// Cert is what it serves with.
	Cert cluster.ServingCert
	// Started is how long it took from its start to readiness.
	Started time.Duration

	env   *Env
	spare bool
	stop  func() error
}

// Beside starts one more server, with the flags of the Env's own and more,
// makes webhook configurations for the namespaces that carry the label
// OtherServer with its name, and waits until they are asked. Objects without a
// namespace are left to the Env's own server. The caller ends it with End.
func (e *Env) Beside(ctx context.Context, o ServerOptions) (*Server, error) {
	s, err := e.serve(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := e.arm(ctx, s); err != nil {
		_ = s.End(ctx)
		return nil, err
	}
	return s, nil
}

// Alone starts one more server that no webhook configuration leads to.
func (e *Env) Alone(ctx context.Context, o ServerOptions) (*Server, error) { return e.serve(ctx, o) }

// End takes the server's webhook configurations away and ends it.
func (s *Server) End(ctx context.Context) error {
	if err := s.disarm(ctx); err != nil {
		return err
	}
	return s.Terminate()
}

// Terminate sends SIGTERM and waits until the process is gone. The webhook
// configurations stay.
func (s *Server) Terminate() error { return s.stop() }

// serve starts pratique serve and waits until it is ready.
func (e *Env) serve(ctx context.Context, o ServerOptions) (*Server, error) {
	ports, err := cluster.FreePorts(2)
	if err != nil {
		return nil, err
	}
	s := &Server{
		Name:    o.Name,
		Address: fmt.Sprintf("127.0.0.1:%d", ports[0]),
		Health:  fmt.Sprintf("127.0.0.1:%d", ports[1]),
		env:     e,
		spare:   o.Spare,
	}
	if o.Known {
		s.Address = e.Caller.Address
		e.Caller.release()
	}
	if s.Cert, err = cluster.NewServingCert(filepath.Join(e.options.Dir, o.Name)); err != nil {
		return nil, err
	}
	program := cluster.Program{Name: o.Name, Binary: e.Binary, Args: e.flags(s, o), Kubeconfig: e.Account}
	// Of one variable the last one counts.
	if environment := slices.Concat(e.options.Environment, o.Environment); len(environment)+len(o.Unset) > 0 {
		var args []string
		for _, name := range o.Unset {
			args = append(args, "--unset="+name)
		}
		args = append(append(args, environment...), e.Binary)
		program.Binary, program.Args = envProgram, append(args, program.Args...)
	}
	began := time.Now()
	if s.stop, err = e.run(program); err != nil {
		return nil, err
	}
	if err := s.awaitReady(ctx); err != nil {
		_ = s.Terminate()
		return nil, err
	}
	s.Started = time.Since(began)
	fmt.Fprintf(e.options.Log, "%s is ready after %.1f s\n", o.Name, s.Started.Seconds())
	return s, nil
}

// run starts a program. The cluster's list of processes is not made for several
// at once, tests are.
func (e *Env) run(program cluster.Program) (stop func() error, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	inner, err := e.Run(program)
	if err != nil {
		return nil, err
	}
	return func() error {
		e.mu.Lock()
		defer e.mu.Unlock()
		return inner()
	}, nil
}

func (e *Env) flags(s *Server, o ServerOptions) []string {
	flags := []string{
		"serve", "--bind-address", s.Address, "--health-address", s.Health, "--metrics-address", "0",
		"--cert-dir", filepath.Dir(s.Cert.CertFile), "--namespace", Namespace,
		"--registry-allow-cidrs", "127.0.0.0/8", "--insecure-registries", e.Registry.Host(),
	}
	for _, host := range e.options.Insecure {
		flags = append(flags, "--insecure-registries", host)
	}
	if len(e.options.Inject) > 0 {
		flags = append(flags, "--inject-namespaces", strings.Join(e.options.Inject, ","))
	}
	return append(append(flags, e.options.Args...), o.Args...)
}

func (s *Server) awaitReady(ctx context.Context) error {
	err := wait.PollUntilContextTimeout(ctx, poll, readyWithin, true, func(ctx context.Context) (bool, error) {
		return s.Ready(ctx), nil
	})
	if err != nil {
		log, _ := os.ReadFile(s.env.Log(s.Name))
		return fmt.Errorf("waiting for %s: %w; it said:\n%s", s.Name, err, log)
	}
	return nil
}

// Ready reports whether the server says that it is.
func (s *Server) Ready(ctx context.Context) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.Health+"/readyz", nil)
	if err != nil {
		return false
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false // not listening yet, or no more
	}
	_ = response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// configurations are the program's own, for the server's address. Those of a
// server beside are narrowed to the namespaces that carry its label.
func (e *Env) configurations(s *Server) (
	*admissionregistrationv1.MutatingWebhookConfiguration, *admissionregistrationv1.ValidatingWebhookConfiguration, error,
) {
	catalog, err := webhook.LoadCatalog()
	if err != nil {
		return nil, nil, fmt.Errorf("reading the catalog: %w", err)
	}
	mutating, validating, err := catalog.Configurations(webhook.ConfigurationOptions{
		Name: s.Name, Namespace: Namespace, URL: "https://" + s.Address, CABundle: s.Cert.CAPEM, Spare: s.spare,
	})
	if err != nil {
		return nil, nil, err
	}
	for i := range mutating.Webhooks {
		hook := &mutating.Webhooks[i]
		s.narrow(hook.NamespaceSelector, hook.Rules)
	}
	// ImageConfigs are in no namespace: one server checks them.
	if s.Name != mainName {
		validating.Webhooks = slices.DeleteFunc(validating.Webhooks, func(h admissionregistrationv1.ValidatingWebhook) bool {
			return h.NamespaceSelector == nil
		})
	}
	for i := range validating.Webhooks {
		hook := &validating.Webhooks[i]
		s.narrow(hook.NamespaceSelector, hook.Rules)
		if hook.NamespaceSelector == nil {
			hook.ObjectSelector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
				{Key: Unchecked, Operator: metav1.LabelSelectorOpDoesNotExist},
			}}
		}
	}
	return mutating, validating, nil
}

// narrow has a webhook asked about the server's own namespaces only.
func (s *Server) narrow(selector *metav1.LabelSelector, rules []admissionregistrationv1.RuleWithOperations) {
	switch {
	case selector == nil:
	case s.Name == mainName:
		selector.MatchExpressions = append(selector.MatchExpressions,
			metav1.LabelSelectorRequirement{Key: OtherServer, Operator: metav1.LabelSelectorOpDoesNotExist})
	default:
		*selector = metav1.LabelSelector{MatchLabels: map[string]string{OtherServer: s.Name}}
		// A selector of namespaces does not hold for what has none.
		for i := range rules {
			rules[i].Scope = new(admissionregistrationv1.NamespacedScope)
		}
	}
}

// arm makes the server's webhook configurations.
func (e *Env) arm(ctx context.Context, s *Server) error {
	mutating, validating, err := e.configurations(s)
	if err != nil {
		return err
	}
	hooks := e.Client.AdmissionregistrationV1()
	if _, err := hooks.MutatingWebhookConfigurations().Create(ctx, mutating, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("making the mutating webhook configuration: %w", err)
	}
	if _, err := hooks.ValidatingWebhookConfigurations().Create(ctx, validating, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("making the validating webhook configuration: %w", err)
	}
	return e.awaitArmed(ctx, s)
}

func (s *Server) disarm(ctx context.Context) error {
	hooks := s.env.Client.AdmissionregistrationV1()
	for _, err := range []error{
		hooks.MutatingWebhookConfigurations().Delete(ctx, s.Name, metav1.DeleteOptions{}),
		hooks.ValidatingWebhookConfigurations().Delete(ctx, s.Name, metav1.DeleteOptions{}),
	} {
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("taking the webhook configurations of %s away: %w", s.Name, err)
		}
	}
	return nil
}

// awaitArmed waits until the API server asks the webhooks: what is no reference
// is refused, or warned of in Audit, whatever the policies say.
func (e *Env) awaitArmed(ctx context.Context, s *Server) error {
	namespace := "default"
	if s.Name != mainName {
		namespace = "armed-" + s.Name
		manifest := fmt.Sprintf(`{apiVersion: v1, kind: Namespace, metadata: {name: %s, labels: {%s: %s}}}`,
			namespace, OtherServer, s.Name)
		if _, stderr, exit := e.Apply(ctx, manifest); exit != 0 {
			return fmt.Errorf("making a namespace: %s", stderr)
		}
	}
	const podTemplate = `{apiVersion: v1, kind: PodTemplate, metadata: {name: armed},
  template: {spec: {containers: [{name: armed, image: "no//reference"}]}}}`
	var last string
	err := wait.PollUntilContextTimeout(ctx, poll, readyWithin, true, func(ctx context.Context) (bool, error) {
		_, stderr, _ := e.Apply(ctx, podTemplate, "--dry-run=server", "--namespace", namespace)
		last = stderr
		return strings.Contains(stderr, "invalid image reference"), nil
	})
	if err != nil {
		return fmt.Errorf("waiting for the webhooks of %s to be asked: %w; last: %s", s.Name, err, last)
	}
	return nil
}
