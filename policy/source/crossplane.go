// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"crypto"
	"fmt"
	"regexp"
	"strings"

	utilerrors "k8s.io/apimachinery/pkg/util/errors"

	"github.com/pratique-dev/pratique/api/crossplane/v1beta1"
	"github.com/pratique-dev/pratique/api/v1alpha1"
	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/cosign"
	"github.com/pratique-dev/pratique/policy/trust"
	"github.com/pratique-dev/pratique/reference"
)

// KindCrossplane is what rules from Crossplane's ImageConfigs are called, which
// tells them from Pratique's own.
const KindCrossplane = v1beta1.KindImageConfig + "." + v1beta1.GroupName

// Crossplane's ImageConfigs are read wherever they are served. The rights to their
// Secrets, which are in Crossplane's namespace, are in deploy/rbac/crossplane.yaml:
// that namespace is not everywhere.
//
// +kubebuilder:rbac:groups=pkg.crossplane.io,resources=imageconfigs,verbs=list;watch

func crossplaneGroup(namespace string) otherGroup {
	return otherGroup{
		group: v1beta1.GroupName, versions: []string{v1beta1.Version},
		kinds: map[string]string{v1beta1.KindImageConfig: v1beta1.Resource}, namespace: namespace,
	}
}

// crossplane is one of Crossplane's ImageConfigs on its way to a rule. It is
// judged as Crossplane judges, save where that would let in what nobody vouches
// for (spec section 3, "Two dialects").
type crossplane struct {
	compilation

	config *v1beta1.ImageConfig
	// namespace is Crossplane's, where all Secrets are.
	namespace string
}

// CompileCrossplane compiles one of Crossplane's ImageConfigs, given as JSON. As
// with [Compiler.Compile], every mistake makes a rule that is not ready.
func (c Compiler) CompileCrossplane(raw []byte, objects Objects) (Compiled, error) {
	config, err := v1beta1.Decode(raw)
	if config == nil {
		return Compiled{}, err
	}
	c.cluster = false // the object has no status that kubectl could show
	one := &crossplane{config: config, namespace: c.CrossplaneNamespace}
	one.compilation = compilation{
		compiler: c, config: &v1alpha1.ImageConfig{ObjectMeta: config.ObjectMeta}, objects: objects,
		rule: &policy.Rule{Kind: KindCrossplane, Name: config.Name, Mode: policy.Enforce},
	}
	if err != nil {
		one.invalid = []error{err}
		one.rule.Everywhere = mayMatchMore(raw)
	}
	return one.run(), nil
}

func (c *crossplane) run() Compiled {
	c.matchImages()
	c.checkVerification()
	if len(c.invalid) > 0 {
		problem := wrong(v1alpha1.ReasonInvalid, "%v", utilerrors.NewAggregate(c.invalid))
		if c.rule.Everywhere {
			problem.message += "; which images it is for cannot be read, so all are held back"
		}
		c.problems = append(c.problems, problem)
	}
	c.rewrite()
	c.authentication()
	if len(c.problems) == 0 && c.config.Spec.Verification != nil {
		c.verification()
	}
	return c.result()
}

// matchImages reads which images are meant: by the bytes of a reference as it is
// written, and by its canonical form, under which no other way to write the same
// image is missed.
func (c *crossplane) matchImages() {
	spec := &c.config.Spec
	lost := func(format string, args ...any) {
		err := fmt.Errorf(format, args...)
		if len(c.invalid) == 0 && spec.Verification == nil && spec.RewriteImage == nil {
			// It says nothing but with which pull secret.
			c.pullProblems = append(c.pullProblems, wrong(v1alpha1.ReasonInvalid, "%v", err))
			return
		}
		c.invalid = append(c.invalid, err)
		c.rule.Everywhere = true
	}
	if len(spec.MatchImages) == 0 {
		lost("spec.matchImages: it should have at least one element")
	}
	for i, match := range spec.MatchImages {
		path := fmt.Sprintf("spec.matchImages[%d]", i)
		if match.Type != v1beta1.MatchPrefix {
			lost("%s.type: %q is unknown", path, match.Type)
			continue
		}
		prefixes, err := canonicalPrefixes(match.Prefix)
		if err != nil {
			c.notes = append(c.notes, fmt.Sprintf(
				"%s.prefix: %q is compared with references only as they are written: %v", path, clip(match.Prefix, maxType), err))
		}
		c.rule.Written = append(c.rule.Written, match.Prefix)
		c.rule.Prefixes = append(c.rule.Prefixes, prefixes...)
	}
}

// canonicalPrefixes brings a prefix to the forms in which references are
// compared. One without a slash may be the beginning of a host, and of a name on
// Docker Hub, as it is in a reference.
func canonicalPrefixes(written string) ([]reference.Prefix, error) {
	prefixes, err := reference.ParsePrefix(written)
	if written == "" || strings.Contains(written, "/") {
		return prefixes, err
	}
	short, inShort := reference.ParsePrefix(reference.DockerHub + "/" + written)
	if inShort == nil {
		return append(prefixes, short...), nil
	}
	return prefixes, err
}

// checkVerification refuses what Crossplane itself refuses, and the four ways in
// which it lets in what nobody in particular has signed.
func (c *crossplane) checkVerification() {
	verification := c.config.Spec.Verification
	if verification == nil {
		return
	}
	const path = "spec.verification"
	wrong := func(format string, args ...any) { c.invalid = append(c.invalid, fmt.Errorf(path+format, args...)) }
	switch {
	case verification.Provider != v1beta1.ProviderCosign:
		wrong(".provider: %q is unknown", verification.Provider)
	case verification.Cosign == nil:
		wrong(".cosign: it is missing")
	case len(verification.Cosign.Authorities) == 0:
		wrong(".cosign.authorities: there are none: Crossplane would accept every image")
	default:
		for i := range verification.Cosign.Authorities {
			at := fmt.Sprintf(".cosign.authorities[%d]", i)
			checkAuthority(&verification.Cosign.Authorities[i], func(format string, args ...any) { wrong(at+format, args...) })
		}
	}
}

func checkAuthority(a *v1beta1.Authority, wrong func(format string, args ...any)) {
	switch {
	case a.Key != nil:
		if _, ok := hashes[hashName(a.Key.HashAlgorithm)]; !ok {
			wrong(".key.hashAlgorithm: %q is unknown", a.Key.HashAlgorithm)
		}
	case a.Keyless == nil:
		wrong(": it has neither key nor keyless: Crossplane would accept the signature of anybody")
	case len(a.Keyless.Identities) == 0:
		wrong(".keyless.identities: there are none: Crossplane would accept the signature of anybody")
	default:
		for i, id := range a.Keyless.Identities {
			checkIdentity(id, func(format string, args ...any) { wrong(fmt.Sprintf(".keyless.identities[%d]", i)+format, args...) })
		}
	}
	for i, attestation := range a.Attestations {
		if attestation.PredicateType == "" {
			wrong(".attestations[%d].predicateType: it is empty", i)
		}
	}
}

func checkIdentity(id v1beta1.Identity, wrong func(format string, args ...any)) {
	if id.Issuer == "" && id.IssuerRegExp == "" {
		wrong(": it has neither issuer nor issuerRegExp: Crossplane would accept any")
	}
	if id.Subject == "" && id.SubjectRegExp == "" {
		wrong(": it has neither subject nor subjectRegExp: Crossplane would accept any")
	}
	for name, expression := range map[string]string{"issuerRegExp": id.IssuerRegExp, "subjectRegExp": id.SubjectRegExp} {
		if _, err := regexp.Compile(expression); err != nil {
			wrong(".%s: %w", name, err)
		}
	}
}

// hashName reads the name of a hash function as leniently as Crossplane does.
func hashName(written string) v1alpha1.HashAlgorithm {
	return v1alpha1.HashAlgorithm(strings.ToLower(strings.TrimSpace(written)))
}

// rewrite reads under which name images are looked for. What runs keeps its
// name: it is Crossplane that pulls its packages from elsewhere.
func (c *crossplane) rewrite() {
	rewrite := c.config.Spec.RewriteImage
	switch {
	case rewrite == nil:
	case rewrite.Prefix == "":
		c.problems = append(c.problems, wrong(v1alpha1.ReasonInvalid, "spec.rewriteImage.prefix: it is empty"))
	default:
		c.rule.Rewrite = &policy.Rewrite{Lookup: true, Written: rewrite.Prefix}
	}
}

// authentication reads the pull secret. Where the object cannot be read as it is
// meant, no shorter prefix's steps in for it.
func (c *crossplane) authentication() {
	if len(c.invalid) > 0 {
		c.rule.Unread = true
		c.rule.Authentication = &policy.Authentication{}
		return
	}
	registry := c.config.Spec.Registry
	if registry == nil || registry.Authentication == nil || registry.Authentication.PullSecretRef.Name == "" {
		return
	}
	const path = "spec.registry.authentication.pullSecretRef"
	e := entry{path: path, namespace: c.namespace, name: registry.Authentication.PullSecretRef.Name}
	c.rule.Authentication = &policy.Authentication{}
	secret, problem := c.secretAt(e)
	if problem == nil {
		config, err := parsePullSecret(secret)
		if err == nil {
			c.rule.Authentication.Credentials = config
			return
		}
		problem = wrong(v1alpha1.ReasonSecretInvalid, "%s: secret %q: %v", path, e.namespace+"/"+e.name, err)
	}
	c.pullProblems = append(c.pullProblems, problem)
	c.rule.Authentication.Problem = fmt.Sprintf("%s %q: %s", KindCrossplane, c.config.Name, oneLine(problem.message))
}

// verification compiles who must have signed.
func (c *crossplane) verification() {
	const path = "spec.verification.cosign"
	list := c.config.Spec.Verification.Cosign.Authorities
	all := make([]identified, 0, len(list))
	for i := range list {
		authority, problem := c.authority(&list[i], fmt.Sprintf("%s.authorities[%d]", path, i))
		if problem != nil {
			c.problems = append(c.problems, problem)
			continue
		}
		all = append(all, identified{Authority: authority})
	}
	if len(c.problems) > 0 {
		return
	}
	var problem *mistake
	if c.rule.Verification, problem = c.compiler.verificationOf(all, path); problem != nil {
		c.problems = append(c.problems, problem)
	}
}

// authority compiles one authority. Whatever it has signed must be in a
// transparency log, and of several attestations any one is enough.
func (c *crossplane) authority(a *v1beta1.Authority, path string) (cosign.Authority, *mistake) {
	made := cosign.Authority{Name: a.Name, Log: true, AnyAttestation: true}
	if a.Key != nil {
		if a.Keyless != nil {
			c.notes = append(c.notes, path+": it has both key and keyless: the key alone counts, as with Crossplane")
		}
		var problem *mistake
		if made.Keys, made.Hash, problem = c.key(a.Key, path+".key.secretRef"); problem != nil {
			return made, problem
		}
	} else {
		made.Keyless = keylessOf(a.Keyless)
	}
	var problem *mistake
	if made.Trust, problem = c.trusted(made.Keyless, path); problem != nil {
		return made, problem
	}
	for i, attestation := range a.Attestations {
		kind, known := predicateType(attestation.PredicateType)
		if !known {
			c.notes = append(c.notes, fmt.Sprintf(
				"%s.attestations[%d].predicateType: %q is neither a short name nor a URI, and is compared as it is", path, i, clip(kind, maxType)))
		}
		made.Attestations = append(made.Attestations, cosign.Attestation{Name: attestation.Name, PredicateType: kind})
	}
	return made, nil
}

func keylessOf(k *v1beta1.Keyless) *cosign.Keyless {
	made := &cosign.Keyless{Unanchored: true, IgnoreSCT: k.InsecureIgnoreSCT}
	for _, id := range k.Identities {
		made.Identities = append(made.Identities, cosign.Identity{
			Issuer: id.Issuer, IssuerRegExp: id.IssuerRegExp, Subject: id.Subject, SubjectRegExp: id.SubjectRegExp,
		})
	}
	return made
}

// trusted is the server's trust root, if it has what is asked of it: without it
// nothing could ever be accepted.
func (c *crossplane) trusted(keyless *cosign.Keyless, path string) (*trust.Root, *mistake) {
	found, problem := c.defaultRoot(path)
	switch {
	case problem != nil:
		return nil, problem
	case !found.HasTransparencyLogs():
		return nil, found.lacks("transparency log")
	case keyless != nil && !found.HasCertificateAuthorities():
		return nil, found.lacks("certificate authority")
	case keyless != nil && !keyless.IgnoreSCT && !found.HasCertificateLogs():
		return nil, found.lacks("certificate transparency log (insecureIgnoreSCT: true would ask for none)")
	}
	return found.Root, nil
}

// key finds a public key and tries it by itself, so that a mistake names its
// place.
func (c *crossplane) key(k *v1beta1.Key, path string) ([][]byte, crypto.Hash, *mistake) {
	found, problem := c.secretKey(entry{path: path, namespace: c.namespace, name: k.SecretRef.Name, key: k.SecretRef.Key})
	if problem != nil {
		return nil, 0, problem
	}
	alone := cosign.Authority{Keys: [][]byte{found.data}, Hash: hashes[hashName(k.HashAlgorithm)]}
	if _, err := cosign.New(c.compiler.Cosign, []cosign.Authority{alone}); err != nil {
		return nil, 0, found.wrong(unwrapped(err))
	}
	return alone.Keys, alone.Hash, nil
}
