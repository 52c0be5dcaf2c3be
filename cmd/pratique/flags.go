// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/source"
	"github.com/pratique-dev/pratique/reference"
	"github.com/pratique-dev/pratique/registry"
)

// choice is a flag with a few values.
type choice[T ~string] struct {
	value   *T
	allowed []T
}

func newChoice[T ~string](value *T, first T, others ...T) *choice[T] {
	*value = first
	return &choice[T]{value: value, allowed: append([]T{first}, others...)}
}

// String implements [pflag.Value].
func (c *choice[T]) String() string { return string(*c.value) }

// Set implements [pflag.Value].
func (c *choice[T]) Set(s string) error {
	if !slices.Contains(c.allowed, T(s)) {
		return fmt.Errorf("must be %s", c.Type())
	}
	*c.value = T(s)
	return nil
}

// Type implements [pflag.Value]: the values, as help shows them.
func (c *choice[T]) Type() string {
	names := make([]string, len(c.allowed))
	for i, a := range c.allowed {
		names[i] = string(a)
	}
	return strings.Join(names, "|")
}

type outputFormat string

const (
	outputText outputFormat = "text"
	outputJSON outputFormat = "json"
)

func (o *outputFormat) register(flags *pflag.FlagSet) {
	flags.VarP(newChoice(o, outputText, outputJSON), "output", "o", "form of the output")
}

// registryFlags say which registries may be asked, and how.
type registryFlags struct {
	caFile               string
	allowCIDRs, denyCIDR []string
	insecure             []string
	clouds               bool
}

func (f *registryFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.caFile, "ca-file", "", "PEM `file` of certificate authorities trusted for registries, besides the system's")
	flags.StringSliceVar(&f.allowCIDRs, "registry-allow-cidrs", nil,
		"address `ranges` where registries may be, although they are refused by default (loopback, link-local, metadata services)")
	flags.StringSliceVar(&f.denyCIDR, "registry-deny-cidrs", nil, "address `ranges` where registries are never asked")
	flags.StringSliceVar(&f.insecure, "insecure-registries", nil,
		"registries, as `host[:port]`, that are asked over plain HTTP, without credentials unless an ImageConfig says insecurePlainHTTP")
	flags.BoolVar(&f.clouds, "cloud-credentials", true, "ask the cloud that Pratique runs in for credentials of its own registries (AWS, Google, Azure)")
}

func (f *registryFlags) options() (registry.Options, error) {
	options := registry.Options{Insecure: f.insecure}
	err := checkHosts("insecure-registries", f.insecure)
	if err != nil {
		return options, err
	}
	if options.AllowCIDRs, err = parseCIDRs("registry-allow-cidrs", f.allowCIDRs); err != nil {
		return options, err
	}
	if options.DenyCIDRs, err = parseCIDRs("registry-deny-cidrs", f.denyCIDR); err != nil {
		return options, err
	}
	if f.caFile == "" {
		return options, nil
	}
	pem, err := os.ReadFile(f.caFile)
	if err != nil {
		return options, fmt.Errorf("reading --ca-file: %w", err)
	}
	if options.RootCAs, err = x509.SystemCertPool(); err != nil {
		return options, fmt.Errorf("reading the system's certificate authorities: %w", err)
	}
	if !options.RootCAs.AppendCertsFromPEM(pem) {
		return options, fmt.Errorf("reading --ca-file: %s holds no certificate in PEM form", f.caFile)
	}
	return options, nil
}

// checkHosts refuses what no registry's host can be: it would never be asked,
// and nobody would learn why.
func checkHosts(flag string, hosts []string) error {
	for _, host := range hosts {
		if !isHost(host) {
			return fmt.Errorf("reading --%s: %q is not a registry's host such as registry.example.com:5000", flag, host)
		}
	}
	return nil
}

func isHost(host string) bool {
	if _, err := reference.ParsePrefix(host); err != nil || strings.Contains(host, "/") {
		return false
	}
	// References may have any number for a port.
	u, err := url.Parse("https://" + host)
	if err != nil {
		return false
	}
	_, err = strconv.ParseUint(cmp.Or(u.Port(), "443"), 10, 16)
	return err == nil
}

func parseCIDRs(flag string, texts []string) ([]netip.Prefix, error) {
	var prefixes []netip.Prefix
	for _, text := range texts {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("reading --%s: %q is not an address range such as 10.0.0.0/8", flag, text)
		}
		prefixes = append(prefixes, prefix)
	}
	return prefixes, nil
}

// policyFlags are what holds for all rules.
type policyFlags struct {
	server              policy.Server
	namespace           string
	crossplaneNamespace string
	// policyController is where its own objects are, clusterPolicies which
	// namespaces its policies govern.
	policyController string
	clusterPolicies  governed
	trustedRoot      string
	// containersPolicy is a policy.json, registriesD a registries.d folder.
	containersPolicy, registriesD string
}

func (f *policyFlags) register(flags *pflag.FlagSet) {
	flags.Var(newChoice(&f.server.Mode, policy.Enforce, policy.Audit), "mode",
		"what verdicts do; Audit wins over every ImageConfig: nothing is denied, pinned, rewritten or injected")
	flags.Var(newChoice(&f.server.Unmatched, policy.UnmatchedAllow, policy.UnmatchedWarn, policy.UnmatchedDeny), "unmatched",
		"what happens to images that no rule covers")
	flags.Var(newChoice(&f.server.Pin, policy.PinMatched, policy.PinAll, policy.PinNever), "pin",
		"which images of Pods get a digest; Never leaves it to another webhook")
	flags.StringVar(&f.namespace, "namespace", "pratique-system", "Pratique's own `namespace`: the Secrets and ConfigMaps that ImageConfigs name are there")
	flags.StringVar(&f.crossplaneNamespace, "crossplane-namespace", "crossplane-system",
		"`namespace` of Crossplane: the Secrets that its packages and its own ImageConfigs name are there")
	flags.StringVar(&f.policyController, "policy-controller-namespace", "cosign-system",
		"`namespace` of Sigstore's policy-controller: its settings are there, and the Secrets and ConfigMaps that its policies name")
	flags.Var(newChoice(&f.clusterPolicies, governsLabelled, governsAll), "cip-namespaces",
		"which namespaces ClusterImagePolicies govern; Labelled are those with policy.sigstore.dev/include=true")
	flags.StringVar(&f.trustedRoot, trustedRootFlag, "",
		"`file` with a Sigstore trusted root (trusted_root.json), reloaded on change, for ImageConfigs that name none; without one, the public Sigstore's, fetched once a rule needs it")
	flags.StringVar(&f.containersPolicy, containersPolicyFlag, "",
		"`file` with a containers-policy.json(5), as nodes have it, reloaded on change with the keys that it names; what it asks for is asked besides what ImageConfigs do")
	flags.StringVar(&f.registriesD, registriesDFlag, "",
		"`folder` of containers-registries.d(5) files, reloaded on change: where signatures for --containers-policy and for the provider ContainersPolicy are looked for")
}

// The flags that name files. None of them is switched off by naming none.
const (
	trustedRootFlag      = "trusted-root"
	containersPolicyFlag = "containers-policy"
	registriesDFlag      = "registries-d"
)

// check refuses a namespace that cannot be: an empty one would mean all. And no
// file is not the public trust root, or no policy.
func (f *policyFlags) check(c *cobra.Command) error {
	var errs []error
	for _, flag := range []struct{ name, value, what string }{
		{trustedRootFlag, f.trustedRoot, "file"}, {containersPolicyFlag, f.containersPolicy, "file"}, {registriesDFlag, f.registriesD, "folder"},
	} {
		if flag.value == "" && c.Flags().Changed(flag.name) {
			errs = append(errs, fmt.Errorf("reading --%s: it names no %s", flag.name, flag.what))
		}
	}
	return errors.Join(errors.Join(errs...), checkNamespace("--namespace", f.namespace), checkNamespace("--crossplane-namespace", f.crossplaneNamespace),
		checkNamespace("--policy-controller-namespace", f.policyController))
}

// governed says which namespaces are governed.
type governed string

const (
	governsLabelled governed = "Labelled"
	governsAll      governed = "All"
)

// ofPolicyController says how policy-controller's objects are read.
func (f *policyFlags) ofPolicyController() source.PolicyController {
	return source.PolicyController{Namespace: f.policyController, All: f.clusterPolicies == governsAll}
}

func checkNamespace(flag, name string) error {
	if len(validation.IsDNS1123Label(name)) > 0 {
		return fmt.Errorf("reading %s: %q is not a namespace's name", flag, name)
	}
	return nil
}
