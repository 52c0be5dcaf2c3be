// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cloud

import (
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/pratique-dev/pratique/reference"
)

// TestGuard: registries of the clouds by their whole name, and nothing that only
// looks like one.
func TestGuard(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]Provider{
		"123456789012.dkr.ecr.us-east-1.amazonaws.com":                AWS,
		"123456789012.dkr.ecr.us-gov-west-1.amazonaws.com":            AWS,
		"123456789012.dkr.ecr-fips.us-east-1.amazonaws.com":           AWS,
		"123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn":            AWS,
		"123456789012.dkr-ecr.eu-central-1.on.aws":                    AWS,
		"123456789012.dkr-ecr.cn-north-1.on.amazonwebservices.com.cn": AWS,
		"123456789012.dkr.ecr.eusc-de-east-1.amazonaws.eu":            AWS,
		"public.ecr.aws":     AWS,
		"ecr-public.aws.com": AWS,
		"x.public.ecr.aws":   "",
		"ecr.aws":            "",
		"12345678901.dkr.ecr.us-east-1.amazonaws.com":          "",
		"1234567890123.dkr.ecr.us-east-1.amazonaws.com":        "",
		"x.123456789012.dkr.ecr.us-east-1.amazonaws.com":       "",
		"123456789012.dkr.ecr.us-east-1.amazonaws.com.evil.io": "",
		"123456789012.dkr.ecr.us-east-1.amazonaws.com.evil":    "",
		"123456789012.dkr.ecr.us-east-1.amazonaws.community":   "",
		"123456789012.dkr.ecr.us-east-1.evil.amazonaws.com":    "",
		"123456789012.dkr.ecr.us-east-1xamazonaws.com":         "",
		"123456789012.dkr.ecr.us_east_1.amazonaws.com":         "",
		"123456789012.dkr.ecr.amazonaws.com":                   "",
		"123456789012.dkr.s3.us-east-1.amazonaws.com":          "",
		"evil.s3.us-east-1.amazonaws.com":                      "",
		"ec2-1-2-3-4.compute-1.amazonaws.com":                  "",
		"123456789012.dkr.ecr.us-east-1.amazonaws.com.cn":      "", // another operator's
		"123456789012.dkr.ecr.cn-north-1.amazonaws.com":        "",
		"123456789012.dkr.ecr.us-east-1.amazonaws.eu":          "",
		"gcr.io":                                    GCP,
		"eu.gcr.io":                                 GCP,
		"us-docker.pkg.dev":                         GCP,
		"europe-west1-docker.pkg.dev":               GCP,
		"docker.us-east1.rep.pkg.dev":               GCP,
		"pkg.dev":                                   "",
		"gcr.io.evil.io":                            "",
		"evilgcr.io":                                "",
		"evil-gcr.io":                               "",
		"x.gcr.iox":                                 "",
		"evilpkg.dev":                               "",
		"us-docker.pkg.dev.evil.io":                 "",
		"storage.google.com":                        "",
		"registry.k8s.io":                           "",
		"docker.pkg.github.com":                     "",
		"acme.azurecr.io":                           Azure,
		"acme-a1b2c3d4.azurecr.io":                  Azure,
		"azurecr.io":                                "",
		"x.azurecr.io.attacker.com":                 "",
		"azurecr.io.evil":                           "",
		"xazurecr.io":                               "",
		"x.azurecrxio":                              "",
		"x.y.azurecr.io":                            "",
		"acme.azurecr.cn":                           "", // other clouds than this
		"acme.azurecr.us":                           "",
		"acme.azurecr.de":                           "",
		"mcr.microsoft.com":                         "",
		"acme.azurecr.io:443":                       "",
		"acme.azurecr.io:5000":                      "",
		"acme.azurecr.io.":                          "",
		".azurecr.io":                               "",
		"acme..azurecr.io":                          "",
		"-acme.azurecr.io":                          "",
		"acme-.azurecr.io":                          "",
		"Acme.azurecr.io":                           "",
		"acme.AZURECR.io":                           "",
		"acme.azurecr.io\n":                         "",
		"acme.azurecr.io\nevil.io":                  "",
		"evil.io\nacme.azurecr.io":                  "",
		"\tacme.azurecr.io":                         "",
		"acme.azurecr.io/":                          "",
		"evil.io/acme.azurecr.io":                   "",
		"evil.io#.azurecr.io":                       "",
		"evil.io?.azurecr.io":                       "",
		`evil.io\.azurecr.io`:                       "",
		"evil.io@acme.azurecr.io":                   "",
		"acme.azurecr.io@evil.io":                   "",
		"evil.io%2f.azurecr.io":                     "",
		"acme.ázurecr.io":                           "",
		"acme.azurecr。io":                           "",
		"xn--acme-9za.azurecr.io":                   "",
		"acme.xn--zurecr-mwa.io":                    "",
		"https://acme.azurecr.io":                   "",
		strings.Repeat("a", 64) + ".azurecr.io":     "",
		strings.Repeat("a.", 130) + "azurecr.io":    "",
		strings.Repeat("aaaaaaaaa.", 30) + "gcr.io": "",
		"registry1.com":                             "",
		"docker.io":                                 "",
		"localhost":                                 "",
		"127.0.0.1":                                 "",
		"[::1]":                                     "",
		"":                                          "",
	} {
		if got := (guard{}).owner(host); got != want {
			t.Errorf("%q is of %q, want %q", host, got, want)
		}
	}
}

// TestAzureEnvironment: each of Azure's clouds is operated apart, and is shown
// its own tokens only.
func TestAzureEnvironment(t *testing.T) {
	t.Parallel()
	for environment, want := range map[string]string{
		"": "io", "AzureCloud": "io", "AzurePublicCloud": "io", "AZUREPUBLICCLOUD": "io", "AzureChinaCloud": "cn",
		"AzureUSGovernment": "us", "AzureUSGovernmentCloud": "us", "AzureGermanCloud": "", "AzureStackCloud": "", "nonsense": "",
	} {
		for _, top := range []string{"io", "cn", "us", "de"} {
			if got := (guard{environment}).owner("acme.azurecr."+top) == Azure; got != (top == want) {
				t.Errorf("in %q acme.azurecr.%s is asked for: %t", environment, top, got)
			}
		}
	}
}

// What references may write differently is one registry's canonical host.
func TestGuardOfReferences(t *testing.T) {
	t.Parallel()
	for written, want := range map[string]Provider{
		"acme.azurecr.io/app":                 Azure,
		"acme.azurecr.io:443/app":             Azure,
		"ACME.azurecr.io/app":                 Azure,
		"acme.azurecr.io:444/app":             "",
		"x.azurecr.io.attacker.com/app":       "",
		"attacker.com/acme.azurecr.io/app":    "",
		"attacker.com:443/acme.azurecr.io:v1": "",
		"library/acme.azurecr.io":             "",
	} {
		ref, err := reference.Parse(written)
		if err != nil {
			t.Fatalf("%s: %v", written, err)
		}
		host, _, _ := strings.Cut(ref.Repository(), "/")
		if got := (guard{}).owner(host); got != want {
			t.Errorf("%s is of %q, want %q", written, got, want)
		}
	}
}

// FuzzGuard: whatever passes is a plain name that ends in a domain of the cloud.
func FuzzGuard(f *testing.F) {
	for _, host := range []string{
		"123456789012.dkr.ecr.us-east-1.amazonaws.com", "123456789012.dkr-ecr.us-east-1.on.aws", "public.ecr.aws", "gcr.io", "eu.gcr.io",
		"us-docker.pkg.dev", "acme.azurecr.io", "x.azurecr.io.attacker.com", "evil.io/acme.azurecr.io", "acme.azurecr.io\n", "a..gcr.io",
	} {
		f.Add(host)
	}
	domains := map[Provider][]string{
		AWS: {
			"amazonaws.com", "amazonaws.com.cn", "amazonaws.eu", "on.aws", "on.amazonwebservices.com.cn", "ecr.aws", "aws.com",
		},
		GCP:   {"gcr.io", "pkg.dev"},
		Azure: {"azurecr.io"},
	}
	f.Fuzz(func(t *testing.T, host string) {
		owner := guard{}.owner(host)
		if owner == "" {
			return
		}
		labels := strings.Split(host, ".")
		if slices.Contains(labels, "") || strings.Trim(host, "abcdefghijklmnopqrstuvwxyz0123456789-.") != "" {
			t.Errorf("%q is no plain name, and of %q", host, owner)
		}
		if !slices.ContainsFunc(domains[owner], func(domain string) bool {
			want := strings.Split(domain, ".")
			return len(labels) >= len(want) && slices.Equal(labels[len(labels)-len(want):], want)
		}) {
			t.Errorf("%q does not end in a domain of %q", host, owner)
		}
		// What the helpers make of it.
		if u, err := url.Parse("https://" + host); err != nil || u.Host != host || u.Hostname() != host || u.Path != "" {
			t.Errorf("%q is read as %v, %v", host, u, err)
		}
		if reference.CanonicalHost(host) != host {
			t.Errorf("%q is not canonical", host)
		}
	})
}
