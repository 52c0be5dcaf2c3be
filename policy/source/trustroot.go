// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	pc "github.com/sigstore/policy-controller/pkg/apis/policy/v1alpha1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"knative.dev/pkg/apis"

	"github.com/pratique-dev/pratique/api/v1alpha1"
	"github.com/pratique-dev/pratique/policy/trust"
)

// KindTrustRoot is policy-controller's kind of trust roots.
const KindTrustRoot = "TrustRoot"

// trustRoots finds TrustRoots by name, for one compilation. A root is read when a
// policy names it, once.
type trustRoots struct {
	compiler Compiler
	objects  Objects
	raw      map[string][]byte
	found    map[string]trustRootFound
}

type trustRootFound struct {
	root    *trust.Root
	problem *mistake
}

func newTrustRoots(c Compiler, raw [][]byte, objects Objects) *trustRoots {
	r := &trustRoots{compiler: c, objects: objects, raw: map[string][]byte{}, found: map[string]trustRootFound{}}
	for _, one := range raw {
		r.raw[objectName(one)] = one
	}
	return r
}

// find finds the root that is named at a path.
func (r *trustRoots) find(name, path string) (foundRoot, *mistake) {
	found, known := r.found[name]
	if !known {
		found.root, found.problem = r.read(name)
		r.found[name] = found
	}
	if found.problem != nil {
		return foundRoot{}, wrong(found.problem.reason, "%s: TrustRoot %q: %s", path, name, found.problem.message)
	}
	return foundRoot{found.root, func(what string) *mistake {
		return wrong(v1alpha1.ReasonInvalid, "%s: TrustRoot %q has no %s", path, name, what)
	}}, nil
}

func (r *trustRoots) read(name string) (*trust.Root, *mistake) {
	raw, ok := r.raw[name]
	if !ok {
		return nil, wrong(v1alpha1.ReasonInvalid, "it does not exist")
	}
	var whole struct {
		metav1.TypeMeta `json:",inline"`
		Metadata        json.RawMessage `json:"metadata"`
		Spec            json.RawMessage `json:"spec"`
		Status          json.RawMessage `json:"status"`
	}
	var spec pc.TrustRootSpec
	err := strictly(raw, &whole)
	if err == nil {
		err = strictly(whole.Spec, &spec)
	}
	if err != nil {
		return nil, wrong(v1alpha1.ReasonInvalid, "reading it: %s", short(err))
	}
	// Of a repository it would unpack what it holds, without a bound.
	if spec.Repository == nil {
		if problem := spec.Validate(nowhere).ViaField("spec").Filter(apis.ErrorLevel); problem != nil {
			return nil, wrong(v1alpha1.ReasonInvalid, "%s", short(problem))
		}
	}
	return r.make(&spec, sha256.Sum256(whole.Spec))
}

func (r *trustRoots) make(spec *pc.TrustRootSpec, hash [sha256.Size]byte) (*trust.Root, *mistake) {
	given := 0
	for _, one := range []bool{spec.SigstoreKeys != nil, spec.Repository != nil, spec.Remote != nil} {
		if one {
			given++
		}
	}
	switch {
	case given != 1:
		return nil, wrong(v1alpha1.ReasonInvalid, "spec: exactly one of sigstoreKeys, remote and repository")
	case spec.SigstoreKeys != nil:
		made, err := sigstoreKeys(spec.SigstoreKeys)
		if err != nil {
			return nil, wrong(v1alpha1.ReasonInvalid, "spec.sigstoreKeys: %s", short(err))
		}
		// The text that it was made by way of is never the same twice.
		return &trust.Root{Material: made.Material, Hash: hash}, nil
	case spec.Repository != nil:
		made, err := r.compiler.PolicyController.archives.root(spec.Repository, hash)
		if err != nil {
			return nil, wrong(v1alpha1.ReasonInvalid, "spec.repository: %s", short(err))
		}
		return made, nil
	default:
		return r.remote(spec.Remote)
	}
}

// The names that policy-controller takes for granted in a repository.
const (
	defaultTargets = "targets"
	trustedRoot    = "trusted_root.json"
)

func (r *trustRoots) remote(from *pc.Remote) (*trust.Root, *mistake) {
	const path = "spec.remote"
	ask := r.compiler.PolicyController.Repository
	switch {
	case ask == nil:
		return nil, wrong(v1alpha1.ReasonNotSupported, "%s: no repository is asked here", path)
	case from.Targets != "" && from.Targets != defaultTargets:
		return nil, wrong(v1alpha1.ReasonNotSupported, "%s.targets: targets are looked for in %q", path, defaultTargets)
	case from.TrustedRootTarget != "" && from.TrustedRootTarget != trustedRoot:
		return nil, wrong(v1alpha1.ReasonNotSupported, "%s.trustedRootTarget: only %q is read", path, trustedRoot)
	}
	found, err := ask(from.Mirror.String(), from.Root)
	if err != nil {
		return nil, wrong(v1alpha1.ReasonPending, "%s: it is not there yet: %s", path, short(err))
	}
	return found, nil
}

// sigstoreKeys makes a trust root of keys and certificates. It takes the way over
// a trusted_root.json, so that what holds for those holds for it.
func sigstoreKeys(from *pc.SigstoreKeys) (*trust.Root, error) {
	var authorities []root.CertificateAuthority
	for i, ca := range from.CertificateAuthorities {
		made, err := certificateAuthorities(ca)
		if err != nil {
			return nil, fmt.Errorf("certificateAuthorities[%d]: %w", i, err)
		}
		authorities = append(authorities, made...)
	}
	var timestamps []root.TimestampingAuthority
	for i, ca := range from.TimeStampAuthorities {
		made, err := timestampAuthority(ca)
		if err != nil {
			return nil, fmt.Errorf("timestampAuthorities[%d]: %w", i, err)
		}
		timestamps = append(timestamps, made)
	}
	logs, err := logsOf(from.TLogs)
	if err != nil {
		return nil, fmt.Errorf("tLogs%w", err)
	}
	certificateLogs, err := logsOf(from.CTLogs)
	if err != nil {
		return nil, fmt.Errorf("ctLogs%w", err)
	}
	made, err := root.NewTrustedRoot(root.TrustedRootMediaType01, authorities, certificateLogs, timestamps, logs)
	if err != nil {
		return nil, fmt.Errorf("making a trust root: %w", err)
	}
	text, err := made.MarshalJSON()
	if err != nil {
		return nil, fmt.Errorf("writing the trust root: %w", err)
	}
	return trust.Parse(text)
}

// chain is what stands in a list of certificates, in whatever order.
type chain struct{ leaves, intermediates, roots []*x509.Certificate }

func readChain(text []byte) (chain, error) {
	leaves, intermediates, roots, err := pc.SplitPEMCertificateChain(text)
	if err != nil {
		return chain{}, fmt.Errorf("certChain: %w", err)
	}
	if len(roots) == 0 {
		return chain{}, errors.New("certChain: no root certificate in it")
	}
	return chain{leaves, intermediates, roots}, nil
}

func certificateAuthorities(from pc.CertificateAuthority) ([]root.CertificateAuthority, error) {
	chain, err := readChain(from.CertChain)
	if err != nil {
		return nil, err
	}
	var all []root.CertificateAuthority
	for _, one := range chain.roots {
		all = append(all, &root.FulcioCertificateAuthority{
			Root: one, Intermediates: chain.intermediates, ValidityPeriodStart: one.NotBefore, URI: from.URI.String(),
		})
	}
	return all, nil
}

func timestampAuthority(from pc.CertificateAuthority) (root.TimestampingAuthority, error) {
	chain, err := readChain(from.CertChain)
	switch {
	case err != nil:
		return nil, err
	case len(chain.leaves) > 1 || len(chain.roots) != 1:
		return nil, errors.New("certChain: it has more than one certificate that signs timestamps, or more than one root")
	}
	made := &root.SigstoreTimestampingAuthority{
		Root: chain.roots[0], Intermediates: chain.intermediates, ValidityPeriodStart: chain.roots[0].NotBefore, URI: from.URI.String(),
	}
	if len(chain.leaves) == 1 {
		made.Leaf = chain.leaves[0]
	}
	return made, nil
}

// always is when the keys of logs begin to be good, as in policy-controller: a
// TrustRoot does not say. Without a beginning none of their entries would count.
var always = time.Unix(0, 0)

func logsOf(list []pc.TransparencyLogInstance) (map[string]*root.TransparencyLog, error) {
	logs := map[string]*root.TransparencyLog{}
	for i, from := range list {
		key, err := cryptoutils.UnmarshalPEMToPublicKey(from.PublicKey)
		if err != nil {
			return nil, fmt.Errorf("[%d].publicKey: not a public key in PEM form", i)
		}
		encoded, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			return nil, fmt.Errorf("[%d].publicKey: %w", i, err)
		}
		// A log is known by the hash of its key (RFC 6962, section 3.2).
		id := sha256.Sum256(encoded)
		hash := crypto.SHA256
		switch from.HashAlgorithm {
		case "sha-256", "sha256", "":
		case "sha-384", "sha384":
			hash = crypto.SHA384
		case "sha-512", "sha512":
			hash = crypto.SHA512
		default:
			return nil, fmt.Errorf("[%d].hashAlgorithm: %q is unknown", i, clip(from.HashAlgorithm, maxType))
		}
		logs[hex.EncodeToString(id[:])] = &root.TransparencyLog{
			BaseURL: from.BaseURL.String(), ID: id[:], HashFunc: hash, PublicKey: key, ValidityPeriodStart: always,
		}
	}
	return logs, nil
}
