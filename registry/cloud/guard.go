// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cloud

import (
	"regexp"
	"strings"
)

// Provider is a cloud, by the name that ImageConfigs give it.
type Provider string

// The clouds whose registries credentials are asked for.
const (
	AWS   Provider = "AWS"
	GCP   Provider = "GCP"
	Azure Provider = "Azure"
)

// label is one label of a host's name as registries have them.
const label = `[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?`

// The registries of Amazon (github.com/awslabs/amazon-ecr-credential-helper
// v0.12.0, ecr-login/api/client.go, ecrPattern and below it). The partitions of
// secret clouds are left out. Here the end must be the region's own: the helper
// would show China's operator what was asked for elsewhere.
var ecr = regexp.MustCompile(`^[0-9]{12}\.dkr[.-]ecr(?:-fips)?\.([a-z]{2,5}(?:-[a-z]{2,12}){1,3}-[0-9]{1,2})\.` +
	`(amazonaws\.com|amazonaws\.com\.cn|amazonaws\.eu|on\.aws|on\.amazonwebservices\.com\.cn)$`)

// The registries of Google (github.com/google/go-containerregistry v0.22.1,
// pkg/v1/google/keychain.go, isGoogle). What ends in google.com is left out: no
// registry is there any more.
var google = regexp.MustCompile(`^(?:gcr\.io|(?:` + label + `\.){1,4}(?:gcr\.io|pkg\.dev))$`)

// The registries of Azure: a name of its own below the domain of each of the
// clouds that are operated apart (github.com/Azure/go-autorest v14.2.0,
// autorest/azure/environments.go, ContainerRegistryDNSSuffix). The helper's own
// expression is not anchored (GO-2026-6225), so it would send the cloud's token
// to x.azurecr.io.attacker.com. Its azurecr.de is left out: that cloud was
// closed in 2021, and domains that nobody needs lapse.
var azure = map[string]*regexp.Regexp{
	"":                       azureBelow("io"),
	"AZURECLOUD":             azureBelow("io"),
	"AZUREPUBLICCLOUD":       azureBelow("io"),
	"AZURECHINACLOUD":        azureBelow("cn"),
	"AZUREUSGOVERNMENT":      azureBelow("us"),
	"AZUREUSGOVERNMENTCLOUD": azureBelow("us"),
}

func azureBelow(top string) *regexp.Regexp {
	return regexp.MustCompile(`^` + label + `\.azurecr\.` + top + `$`)
}

// guard stands in front of the helpers, and knows whose registry a host is.
type guard struct {
	// environment says which of Azure's clouds this is, as AZURE_ENVIRONMENT
	// does: one must not be shown the token of another.
	environment string
}

// owner says which cloud's registry a canonical host is; "" if of none. A host
// with a port is nobody's: the clouds' are at 443, which canonical hosts leave
// out.
func (g guard) owner(host string) Provider {
	const longest = 253                                        // of a name in DNS (RFC 1035, section 2.3.4)
	if len(host) > longest || strings.Contains(host, "xn--") { // of other alphabets no registry's name is
		return ""
	}
	if host == "public.ecr.aws" || host == "ecr-public.aws.com" || isECR(host) {
		return AWS
	}
	if google.MatchString(host) {
		return GCP
	}
	if registries, ok := azure[strings.ToUpper(g.environment)]; ok && registries.MatchString(host) {
		return Azure
	}
	return ""
}

func isECR(host string) bool {
	found := ecr.FindStringSubmatch(host)
	if found == nil {
		return false
	}
	region, end := found[1], found[2]
	switch {
	case strings.HasPrefix(region, "cn-"):
		return strings.HasSuffix(end, ".cn")
	case strings.HasPrefix(region, "eusc-"):
		return end == "amazonaws.eu"
	default:
		return end == "amazonaws.com" || end == "on.aws"
	}
}
