// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"crypto"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/pratique-dev/pratique/api/v1alpha1"
	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/cosign"
)

// identified is an authority with what its verdicts rest on.
type identified struct {
	cosign.Authority

	places []identifiedPlace
}

// verification compiles who must have signed.
func (c *compilation) verification() {
	const path = "spec.verification.cosign"
	var all []identified
	list := c.config.Spec.Verification.Cosign.Authorities
	for i := range list {
		authority, problem := c.authority(&list[i], fmt.Sprintf("%s.authorities[%d]", path, i))
		if problem != nil {
			c.problems = append(c.problems, problem)
			continue
		}
		all = append(all, authority)
	}
	if len(c.problems) > 0 {
		return
	}
	var problem *mistake
	if c.rule.Verification, problem = c.compiler.verificationOf(all, path); problem != nil {
		c.problems = append(c.problems, problem)
	}
}

// verificationOf makes the part of a rule that images have to satisfy.
func (c Compiler) verificationOf(all []identified, path string) (*policy.Verification, *mistake) {
	authorities := make([]cosign.Authority, len(all))
	for i := range all {
		authorities[i] = all[i].Authority
	}
	verifier, err := cosign.New(c.Cosign, authorities)
	if err != nil {
		return nil, wrong(v1alpha1.ReasonInvalid, "%s: %v", path, err)
	}
	hash, err := hashOf(all)
	if err != nil {
		return nil, wrong(v1alpha1.ReasonInvalid, "%s: %v", path, err)
	}
	verification := &policy.Verification{Engine: cosign.Engine, Fixed: verifier.Fixed(), Hash: hash}
	if verification.Fixed == nil {
		verification.Verifier, verification.Places = verifier, verifier.Places()
	}
	return verification, nil
}

// hashOf identifies all that a verdict rests on: the authorities with their
// keys, trust roots, policies and places. Maps are written in the order of their
// keys.
func hashOf(all []identified) ([sha256.Size]byte, error) {
	type whole struct {
		Authority cosign.Authority
		Places    []identifiedPlace
	}
	list := make([]whole, len(all))
	for i, one := range all {
		list[i] = whole{one.Authority, one.places}
		// A place does not say in JSON what it is.
		list[i].Authority.Places = nil
	}
	text, err := json.Marshal(list)
	if err != nil {
		return [sha256.Size]byte{}, fmt.Errorf("hashing the authorities: %w", err)
	}
	return sha256.Sum256(append([]byte(cosign.Engine+"\n"), text...)), nil
}

// authority compiles one authority. Its mistake names the field.
func (c *compilation) authority(a *v1alpha1.Authority, path string) (identified, *mistake) {
	made := identified{Authority: cosign.Authority{
		Name: a.Name, Annotations: a.Annotations, Log: a.CTLog != nil, Timestamp: a.RFC3161Timestamp != nil,
	}}
	var problem *mistake
	switch {
	case a.Static != nil:
		made.Static = cosign.Static(a.Static.Action)
		return made, nil
	case a.Key != nil:
		if made.Keys, made.Hash, problem = c.key(a.Key, path+".key"); problem != nil {
			return made, problem
		}
	case a.Keyless != nil:
		made.Keyless = keyless(a.Keyless)
	default:
		return made, wrong(v1alpha1.ReasonInvalid, "%s: it has neither key, keyless nor static", path)
	}
	if made.Trust, problem = c.trust(a, path); problem != nil {
		return made, problem
	}
	if made.Attestations, problem = c.attestations(a.Attestations, path); problem != nil {
		return made, problem
	}
	made.Places, made.places, problem = c.places(a.Sources, path)
	return made, problem
}

func keyless(k *v1alpha1.Keyless) *cosign.Keyless {
	made := &cosign.Keyless{IgnoreSCT: k.InsecureIgnoreSCT}
	for _, id := range k.Identities {
		made.Identities = append(made.Identities, cosign.Identity{
			Issuer: id.Issuer, IssuerRegExp: string(id.IssuerRegExp),
			Subject: id.Subject, SubjectRegExp: string(id.SubjectRegExp),
		})
	}
	return made
}

// hashes are the functions that signatures by keys are made over.
var hashes = map[v1alpha1.HashAlgorithm]crypto.Hash{
	"":              crypto.SHA256,
	v1alpha1.SHA224: crypto.SHA224,
	v1alpha1.SHA256: crypto.SHA256,
	v1alpha1.SHA384: crypto.SHA384,
	v1alpha1.SHA512: crypto.SHA512,
}

// key finds a public key and tries it by itself, so that a mistake names its
// place.
func (c *compilation) key(k *v1alpha1.Key, path string) ([][]byte, crypto.Hash, *mistake) {
	hash, ok := hashes[k.HashAlgorithm]
	if !ok {
		return nil, 0, wrong(v1alpha1.ReasonInvalid, "%s.hashAlgorithm: %q is unknown", path, k.HashAlgorithm)
	}
	found, problem := c.publicKey(k, path)
	if problem != nil {
		return nil, 0, problem
	}
	alone := cosign.Authority{Keys: [][]byte{found.data}, Hash: hash}
	if _, err := cosign.New(c.compiler.Cosign, []cosign.Authority{alone}); err != nil {
		return nil, 0, found.wrong(unwrapped(err))
	}
	return alone.Keys, hash, nil
}

// secretKeys begins the references of keys in Secrets, in which cosign keeps the
// public key under secretPublicKey (cosign v2, generate-key-pair k8s://).
const (
	secretKeys      = "k8s://"
	secretPublicKey = "cosign.pub"
)

// foundKey is a public key, and the mistake that it would be if it is none.
type foundKey struct {
	data  []byte
	wrong func(error) *mistake
}

func (c *compilation) publicKey(k *v1alpha1.Key, path string) (foundKey, *mistake) {
	invalid := func(path string) func(error) *mistake {
		return func(err error) *mistake { return wrong(v1alpha1.ReasonInvalid, "%s: %v", path, err) }
	}
	inSecret, isSecret := strings.CutPrefix(k.KMS, secretKeys)
	switch kms := path + ".kms"; {
	case k.SecretRef != nil:
		return c.secretKey(entry{path: path + ".secretRef", name: string(k.SecretRef.Name), key: string(k.SecretRef.Key)})
	case isSecret:
		namespace, name, _ := strings.Cut(inSecret, "/")
		return c.secretKey(entry{path: kms, namespace: namespace, name: name, key: secretPublicKey})
	case k.KMS == "":
		return foundKey{[]byte(k.Data), invalid(path + ".data")}, nil
	case c.compiler.Keys == nil:
		return foundKey{}, wrong(v1alpha1.ReasonNotSupported, "%s: this server asks no key services", kms)
	default:
		data, err := c.compiler.Keys(k.KMS)
		if err != nil {
			return foundKey{}, wrong(v1alpha1.ReasonPending, "%s: the key is not there yet: %s", kms, short(err))
		}
		return foundKey{data, invalid(kms)}, nil
	}
}

func (c *compilation) secretKey(e entry) (foundKey, *mistake) {
	e.kind = v1alpha1.TrustRootSecret
	data, problem := c.read(e)
	return foundKey{data, e.wrong}, problem
}

func unwrapped(err error) error {
	if inner := errors.Unwrap(err); inner != nil {
		return inner
	}
	return err
}
