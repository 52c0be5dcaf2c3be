// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/pratique-dev/pratique/internal/arming"
	"github.com/pratique-dev/pratique/internal/certificate"
	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/webhook"
)

// webhookFlags say how the API server is made to ask, and by what it believes
// the answers.
type webhookFlags struct {
	manage        bool
	name          string
	service, url  string
	owner         string
	failurePolicy admissionregistrationv1.FailurePolicyType
	timeout       time.Duration
	exempt        []string
	annotations   map[string]string
	caBundleFile  string
	certSecret    string
	certTimes     []time.Duration // of tests
}

const (
	manageFlag     = "manage-webhooks"
	certSecretFlag = "cert-secret"
	urlFlag        = "webhook-url"
	caBundleFlag   = "ca-bundle-file"
	certTimesFlag  = "cert-times"
	// injectCA is the annotation by which cert-manager's cainjector writes the
	// authorities, whatever follows the prefix: -from, -from-secret, apiserver-ca.
	injectCA = "cert-manager.io/inject-"
	// defaultName is that of the chart's Service, and of the configurations for
	// which deploy/rbac grants rights.
	defaultName = "pratique"
)

func (f *webhookFlags) register(flags *pflag.FlagSet) {
	flags.BoolVar(&f.manage, manageFlag, false,
		"keep the webhook configurations: written by the elected replica once one answers, until pratique disarm; needs deploy/rbac/webhooks-role.yaml")
	nameFlag(flags, &f.name)
	flags.StringVar(&f.service, "webhook-service", defaultName, "`name` of the Service, in --namespace and with port 443, by which API servers reach the webhook")
	flags.StringVar(&f.url, urlFlag, "", "`URL` by which API servers reach the webhook instead, as https://pratique.example.com:9443")
	flags.StringVar(&f.owner, "webhook-owner", "", "`name` of the ClusterRole that the webhook configurations end with; without one they stay")
	flags.Var(newChoice(&f.failurePolicy, admissionregistrationv1.Fail, admissionregistrationv1.Ignore), "failure-policy",
		"what API servers do while nobody answers: Fail refuses; Ignore lets everything in. With --mode Audit, and for /mutate, always Ignore")
	flags.DurationVar(&f.timeout, "webhook-timeout", 10*time.Second, "how long API servers wait, 1s to 30s; with --mode Audit 5s")
	flags.StringSliceVar(&f.exempt, "exempt-namespaces", webhook.DefaultExemptNamespaces(), "`namespaces` in which nothing is examined, besides --namespace")
	flags.StringToStringVar(&f.annotations, "webhook-annotations", nil,
		"`annotations` of the webhook configurations; with cert-manager.io/inject-ca-from=NAMESPACE/NAME cert-manager writes their CA bundle")
	flags.StringVar(&f.caBundleFile, caBundleFlag, "",
		"PEM `file` of the authorities by which API servers are to believe the certificate in --cert-dir; without one, ca.crt in there; without that, the system's")
	flags.StringVar(&f.certSecret, certSecretFlag, "",
		"`name` of a Secret in --namespace where Pratique keeps a certificate that it makes and replaces itself, instead of --cert-dir; needs --manage-webhooks")
	flags.DurationSliceVar(&f.certTimes, certTimesFlag, nil, "of tests: how long authorities and leaves are good, overlap, and time to retire")
	// Nobody can choose better, and who chooses worse is locked out.
	_ = flags.MarkHidden(certTimesFlag)
}

// nameFlag is also one of disarm and arm.
func nameFlag(flags *pflag.FlagSet, name *string) {
	flags.StringVar(name, "webhook-name", defaultName, "`name` of both webhook configurations")
}

// checkWebhooks refuses what would leave the API server with nobody to ask.
func (f *serveFlags) checkWebhooks(c *cobra.Command) error {
	errs := f.checkCertificate(c)
	if f.manage && f.policies != "" {
		errs = append(errs, errors.New("--manage-webhooks keeps them in a cluster, and --policies goes without one"))
	}
	if f.manage && f.certSecret+f.listen.CertDir == "" {
		errs = append(errs, errors.New("--manage-webhooks needs --cert-secret or --cert-dir: nobody can check a self-signed certificate"))
	}
	if err := webhook.CheckTimeout(f.timeout); err != nil {
		errs = append(errs, fmt.Errorf("reading --webhook-timeout: %w", err))
	}
	if c.Flags().Changed(urlFlag) {
		if err := webhook.CheckURL(f.url); err != nil {
			errs = append(errs, fmt.Errorf("reading --webhook-url: %w", err))
		}
	}
	return errors.Join(append(errs, f.checkWebhookNames()...)...)
}

// checkCertificate refuses two certificates, and one that nobody would believe.
func (f *serveFlags) checkCertificate(c *cobra.Command) []error {
	var errs []error
	if f.certSecret == "" && c.Flags().Changed(certSecretFlag) {
		errs = append(errs, errors.New("reading --cert-secret: it names no Secret"))
	}
	if f.certSecret != "" {
		errs = append(errs, f.checkCertSecret()...)
	}
	if f.caBundleFile != "" && f.listen.CertDir == "" {
		errs = append(errs, errors.New("--ca-bundle-file needs --cert-dir"))
	}
	if len(f.certTimes) != 0 && len(f.certTimes) != 4 {
		errs = append(errs, errors.New("reading --cert-times: there are four"))
	}
	return errs
}

func (f *serveFlags) checkCertSecret() []error {
	var errs []error
	if f.listen.CertDir != "" {
		errs = append(errs, errors.New("--cert-secret and --cert-dir: there is one certificate, in one of them"))
	}
	if !f.manage {
		errs = append(errs, errors.New("--cert-secret needs --manage-webhooks: nobody else would learn of the authorities"))
	}
	if f.injected() {
		errs = append(errs, errors.New("--cert-secret and cert-manager's annotation: one of them writes the CA bundle"))
	}
	return errs
}

func (f *webhookFlags) checkWebhookNames() []error {
	var errs []error
	for flag, name := range map[string]string{"--webhook-name": f.name, "--cert-secret": f.certSecret} {
		if name != "" && len(validation.IsDNS1123Subdomain(name)) > 0 {
			errs = append(errs, fmt.Errorf("reading %s: %q is not a name", flag, name))
		}
	}
	if f.name == "" {
		errs = append(errs, errors.New("reading --webhook-name: it is empty"))
	}
	if len(validation.IsDNS1035Label(f.service)) > 0 {
		errs = append(errs, fmt.Errorf("reading --webhook-service: %q is not a Service's name", f.service))
	}
	for _, namespace := range f.exempt {
		errs = append(errs, checkNamespace("--exempt-namespaces", namespace))
	}
	return errs
}

// injected reports whether cert-manager writes the CA bundle.
func (f *webhookFlags) injected() bool {
	for name := range f.annotations {
		if strings.HasPrefix(name, injectCA) {
			return true
		}
	}
	return false
}

// hookSettings say what newHooks makes.
type hookSettings struct {
	webhookFlags

	catalog *webhook.Catalog
	certDir string
	clients bool // --client-ca-file
	mode    policy.Mode
}

// hookSettings are nil if the webhook configurations are somebody else's.
func (f *serveFlags) hookSettings(catalog *webhook.Catalog) *hookSettings {
	if !f.manage {
		return nil
	}
	return &hookSettings{
		webhookFlags: f.webhookFlags, catalog: catalog, certDir: f.listen.CertDir,
		clients: f.listen.ClientCAFile != "", mode: f.policyFlags.server.Mode,
	}
}

// certDirEnds is when the certificate in --cert-dir ends.
func (f *serveFlags) certDirEnds() (leaf, authority time.Time) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(f.listen.CertDir, "tls.crt"), filepath.Join(f.listen.CertDir, "tls.key"))
	if err != nil || pair.Leaf == nil {
		return time.Time{}, time.Time{} // it is being replaced; the server has the last good one
	}
	return pair.Leaf.NotAfter, time.Time{}
}

// hosts are the names by which API servers reach the webhook.
func (s *hookSettings) hosts(namespace string) []string {
	hosts := []string{s.serviceHost(namespace)}
	if u, err := url.Parse(s.url); err == nil && u.Hostname() != "" {
		hosts = append(hosts, u.Hostname())
	}
	return hosts
}

// serviceHost is the name that API servers use for a Service.
func (s *hookSettings) serviceHost(namespace string) string {
	return s.service + "." + namespace + ".svc"
}

// probe asks where API servers ask.
func (s *hookSettings) probe(namespace string) arming.Probe {
	host := net.JoinHostPort(s.serviceHost(namespace), "443")
	if u, err := url.Parse(s.url); err == nil && u.Hostname() != "" {
		port := u.Port()
		if port == "" {
			port = "443"
		}
		host = net.JoinHostPort(u.Hostname(), port)
	}
	return arming.Probe{Host: host, Clients: s.clients}
}

// times of the certificates.
func (s *hookSettings) times() certificate.Times {
	if len(s.certTimes) == 0 {
		return certificate.DefaultTimes()
	}
	return certificate.Times{Authority: s.certTimes[0], Leaf: s.certTimes[1], Overlap: s.certTimes[2], Retire: s.certTimes[3]}
}

// wanted are the webhook configurations that the flags ask for.
func (s *hookSettings) wanted(namespace string) func([]byte, bool) (
	*admissionregistrationv1.MutatingWebhookConfiguration, *admissionregistrationv1.ValidatingWebhookConfiguration, error,
) {
	return func(bundle []byte, spare bool) (
		*admissionregistrationv1.MutatingWebhookConfiguration, *admissionregistrationv1.ValidatingWebhookConfiguration, error,
	) {
		o := webhook.ConfigurationOptions{
			Name: s.name, Namespace: namespace, CABundle: bundle, Mode: s.mode, FailurePolicy: s.failurePolicy, Timeout: s.timeout,
			ExemptNamespaces: s.exempt, Annotations: s.annotations, Labels: map[string]string{"app.kubernetes.io/managed-by": "pratique"}, Spare: spare,
		}
		if s.url == "" {
			o.Service = s.service
		} else {
			o.URL = s.url
		}
		return s.catalog.Configurations(o)
	}
}

// bundleFile reads the authorities of --cert-dir.
func (s *hookSettings) bundleFile(context.Context) ([]byte, error) {
	path, named := s.caBundleFile, s.caBundleFile != ""
	if !named {
		path = filepath.Join(s.certDir, "ca.crt")
	}
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && !named {
		return nil, nil // signed by an authority that every system knows
	}
	if err != nil {
		return nil, fmt.Errorf("reading --ca-bundle-file: %w", err)
	}
	if err := checkBundle(content); err != nil {
		return nil, fmt.Errorf("reading --ca-bundle-file: %s %w", path, err)
	}
	return content, nil
}

// checkBundle refuses what API servers refuse, and what is still being written.
func checkBundle(content []byte) error {
	count := 0
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return fmt.Errorf("holds a %q, and may hold certificates alone", block.Type)
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return fmt.Errorf("holds a malformed certificate: %w", err)
		}
		count++
	}
	if count == 0 || count != bytes.Count(content, []byte("-----BEGIN ")) {
		return errors.New("holds no certificate in PEM form, or one that is not complete")
	}
	return nil
}
