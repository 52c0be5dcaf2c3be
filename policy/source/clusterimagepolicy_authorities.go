// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	pc "github.com/sigstore/policy-controller/pkg/apis/policy/v1alpha1"

	"github.com/pratique-dev/pratique/api/v1alpha1"
	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/cosign"
	"github.com/pratique-dev/pratique/policy/language"
	"github.com/pratique-dev/pratique/policy/trust"
)

// verification compiles who must have signed, and the policy over all of it.
func (p *imagePolicy) verification() {
	spec := &p.object.Spec
	var all []identified
	for i := range spec.Authorities {
		authority, problem := p.authority(&spec.Authorities[i], fmt.Sprintf("spec.authorities[%d]", i))
		if problem != nil {
			p.problems = append(p.problems, problem)
			continue
		}
		all = append(all, authority)
	}
	var final *cosign.Final
	if spec.Policy != nil {
		var problem *mistake
		if final, problem = p.final(spec.Policy, "spec.policy"); problem != nil {
			p.problems = append(p.problems, problem)
		}
	}
	if len(p.problems) > 0 {
		return
	}
	options := p.compiler
	options.Cosign.Evaluator = unwarned{options.Cosign.Evaluator}
	options.Cosign.Collect = final != nil
	verification, problem := options.verificationOf(all, "spec.authorities")
	if problem == nil && final != nil {
		problem = p.finally(verification, *final, options.Cosign)
	}
	if problem != nil {
		p.problems = append(p.problems, problem)
		return
	}
	p.rule.Verification = verification
}

// finally adds the policy over everything to a verification.
func (p *imagePolicy) finally(v *policy.Verification, final cosign.Final, o cosign.Options) *mistake {
	text, err := json.Marshal(final)
	if err != nil {
		return wrong(v1alpha1.ReasonInvalid, "spec.policy: hashing it: %v", err)
	}
	v.Hash = sha256.Sum256(append(v.Hash[:], text...))
	verifier := v.Verifier
	if v.Fixed != nil {
		verifier = decree(*v.Fixed)
	}
	finished, err := cosign.NewFinal(final, cosign.FinalOptions{Verifier: verifier, Evaluator: o.Evaluator, Configs: p.compiler.PolicyController.Configs})
	switch {
	case err != nil:
		return wrong(v1alpha1.ReasonNotSupported, "spec.policy: %v", err)
	case v.Fixed != nil && v.Fixed.Outcome != policy.Accepted:
		return nil // nobody asks the policy
	case v.Fixed != nil && final.ReadsObject() && !final.Config:
		// It needs neither network nor digest, still.
		fixed, problem := finished.Fix(*v.Fixed)
		if problem != nil {
			return wrong(v1alpha1.ReasonInvalid, "spec.policy: %v", problem)
		}
		v.Fixed = &fixed
	default:
		v.Fixed, v.Verifier = nil, finished
	}
	if final.ReadsObject() {
		v.Object = finished
	}
	return nil
}

// decree is a verifier that looks at no image.
type decree policy.Verdict

// Verify implements [policy.Verifier].
func (d decree) Verify(context.Context, policy.Image) policy.Verdict { return policy.Verdict(d) }

// unwarned is an evaluator to which a warning is a refusal, as it is to
// policy-controller.
type unwarned struct{ cosign.Evaluator }

// Evaluate implements [cosign.Evaluator].
func (u unwarned) Evaluate(ctx context.Context, p language.Policy, document []byte) (language.Result, error) {
	if u.Evaluator == nil {
		return language.Result{}, errors.New("there is nothing to evaluate policies with")
	}
	result, err := u.Evaluator.Evaluate(ctx, p, document)
	if result.Compliant && result.Message != "" {
		result.Compliant = false
	}
	return result, err
}

// final reads the policy over everything.
func (p *imagePolicy) final(from *pc.Policy, path string) (*cosign.Final, *mistake) {
	text, problem := p.text(from, path)
	if problem != nil {
		return nil, problem
	}
	is := func(b *bool) bool { return b != nil && *b }
	return &cosign.Final{
		Policy: *text, Config: is(from.FetchConfigFile),
		Spec: is(from.IncludeSpec), Metadata: is(from.IncludeObjectMeta), TypeMeta: is(from.IncludeTypeMeta),
	}, nil
}

// text reads a policy, and tries whether it can be evaluated at all.
func (p *imagePolicy) text(from *pc.Policy, path string) (*language.Policy, *mistake) {
	text, at := from.Data, path+".data"
	switch {
	case from.Remote != nil:
		return nil, wrong(v1alpha1.ReasonNotSupported, "%s.remote: nothing is fetched from there: write the policy in data, or in a ConfigMap", path)
	case from.ConfigMapRef != nil:
		e := entry{
			path: path + ".configMapRef", kind: v1alpha1.TrustRootConfigMap, namespace: p.compiler.namespace,
			name: from.ConfigMapRef.Name, key: from.ConfigMapRef.Key,
		}
		if named := from.ConfigMapRef.Namespace; named != "" && named != p.compiler.namespace {
			p.notes = append(p.notes, fmt.Sprintf("%s.namespace: it counts for nothing: the ConfigMap is read in %q", e.path, p.compiler.namespace))
		}
		data, problem := p.read(e)
		if problem != nil {
			return nil, problem
		}
		text, at = string(data), e.path
	}
	unusable := func(err error) *mistake { return wrong(v1alpha1.ReasonInvalid, "%s: %s", at, short(err)) }
	return p.checked(language.Policy{Language: language.Language(from.Type), Text: text}, path, unusable)
}

// authority compiles one authority. Its mistake names the field.
func (p *imagePolicy) authority(a *pc.Authority, path string) (identified, *mistake) {
	made := identified{Authority: cosign.Authority{Name: a.Name}}
	var problem *mistake
	switch {
	case a.Static != nil:
		made.Static, made.Message = cosign.Static(a.Static.Action), a.Static.Message
		return made, nil
	case a.Key != nil:
		problem = p.publicKeys(a.Key, &made.Authority, path+".key")
	case a.Keyless.CACert != nil:
		problem = wrong(v1alpha1.ReasonNotSupported, "%s.keyless.ca-cert: policy-controller accepts nothing by it: name a TrustRoot with trustRootRef", path)
	default:
		made.Keyless = identitiesOf(a.Keyless)
	}
	if problem == nil {
		problem = p.vouched(a, &made.Authority, path)
	}
	if problem == nil {
		made.Attestations, problem = p.attestations(a.Attestations, path)
		made.Written = writtenAs(a.Attestations)
	}
	if problem == nil {
		made.Places, made.places, problem = p.places(a.Sources, path)
	}
	return made, problem
}

// identitiesOf reads who may have signed. Expressions need only match a part, as
// in policy-controller.
func identitiesOf(k *pc.KeylessRef) *cosign.Keyless {
	made := &cosign.Keyless{Unanchored: true, IgnoreSCT: k.InsecureIgnoreSCT != nil && *k.InsecureIgnoreSCT}
	for _, id := range k.Identities {
		made.Identities = append(made.Identities, cosign.Identity{
			Issuer: id.Issuer, IssuerRegExp: id.IssuerRegExp, Subject: id.Subject, SubjectRegExp: id.SubjectRegExp,
		})
	}
	return made
}

// publicKeys finds a public key. A Secret holds it under whatever key, and nothing
// else: of several it would be unknown which is meant.
func (p *imagePolicy) publicKeys(k *pc.KeyRef, into *cosign.Authority, path string) *mistake {
	alike := &v1alpha1.Key{
		Data: k.Data, KMS: k.KMS, HashAlgorithm: v1alpha1.HashAlgorithm(strings.ToLower(strings.TrimSpace(k.HashAlgorithm))),
	}
	if k.SecretRef != nil {
		path += ".secretRef"
		secret, err := p.objects.Secret(p.compiler.namespace, k.SecretRef.Name)
		switch {
		case err != nil:
			return wrong(v1alpha1.ReasonReadFailed, "%s: reading secret %q: %s", path, k.SecretRef.Name, short(err))
		case secret == nil:
			return wrong(v1alpha1.ReasonSecretNotFound, "%s: secret %q does not exist in namespace %q (set by --policy-controller-namespace)",
				path, k.SecretRef.Name, p.compiler.namespace)
		case len(secret.Data) != 1:
			return wrong(v1alpha1.ReasonSecretInvalid, "%s: secret %q has %d keys: there must be one", path, k.SecretRef.Name, len(secret.Data))
		}
		for _, data := range secret.Data {
			alike.Data = string(data)
		}
	}
	var problem *mistake
	into.Keys, into.Hash, problem = p.key(alike, path)
	return problem
}

// vouched finds by whom certificates, log entries and timestamps must be vouched
// for, and which of them are asked for (policy-controller v0.13, pkg/webhook,
// checkOptsFromAuthority).
func (p *imagePolicy) vouched(a *pc.Authority, into *cosign.Authority, path string) *mistake {
	var certificates, logs, timestamps foundRoot
	var problem *mistake
	if a.Keyless != nil {
		if certificates, problem = p.certificates(a.Keyless, into, path+".keyless"); problem != nil {
			return problem
		}
		logs, timestamps = certificates, certificates
		// In a root of one's own policy-controller looks for no log, and takes the
		// time from its clock: here one of its logs or timestamps tells it.
		into.Log = a.Keyless.TrustRootRef == ""
	}
	if a.CTLog != nil && (a.CTLog.URL != nil || a.CTLog.TrustRootRef != "") {
		into.Log = true
		if logs, problem = p.root(a.CTLog.TrustRootRef, path+".ctlog"); problem != nil {
			return problem
		}
	}
	if a.RFC3161Timestamp != nil {
		at := path + ".rfc3161timestamp"
		if a.RFC3161Timestamp.TrustRootRef == "" {
			return wrong(v1alpha1.ReasonNotSupported, "%s: without trustRootRef policy-controller asks for no timestamp: name a TrustRoot, or leave it out", at)
		}
		if timestamps, problem = p.root(a.RFC3161Timestamp.TrustRootRef, at); problem != nil {
			return problem
		}
		into.Timestamp, into.Log = true, false
	}
	return p.compose(into, certificates, logs, timestamps)
}

// certificates finds by whom certificates must be vouched for.
func (p *imagePolicy) certificates(k *pc.KeylessRef, into *cosign.Authority, path string) (foundRoot, *mistake) {
	found, problem := p.root(k.TrustRootRef, path)
	switch {
	case problem != nil:
		return found, problem
	case !found.HasCertificateAuthorities():
		return found, found.lacks("certificate authority")
	case !into.Keyless.IgnoreSCT && !found.HasCertificateLogs():
		return found, found.lacks("certificate transparency log (insecureIgnoreSCT: true would ask for none)")
	}
	return found, nil
}

// compose puts the trust root of an authority together, and holds it to having
// what is asked of it: without that nothing could ever be accepted.
func (p *imagePolicy) compose(into *cosign.Authority, certificates, logs, timestamps foundRoot) *mistake {
	timed := logs.HasTransparencyLogs() || timestamps.HasTimestampAuthorities()
	switch {
	case into.Timestamp && !timestamps.HasTimestampAuthorities():
		return timestamps.lacks("timestamp authority")
	case into.Log && !logs.HasTransparencyLogs():
		return logs.lacks("transparency log")
	case into.Keyless != nil && !timed:
		return certificates.lacks("transparency log and no timestamp authority: nothing would tell when a certificate was used")
	case certificates.Root != nil || logs.Root != nil || timestamps.Root != nil:
		into.Trust = trust.Compose(certificates.Root, logs.Root, timestamps.Root)
	}
	return nil
}

// root finds a TrustRoot by its name; without one the server's own.
func (p *imagePolicy) root(name, path string) (foundRoot, *mistake) {
	if name == "" {
		return p.defaultRoot(path)
	}
	return p.roots.find(name, path+".trustRootRef")
}

func (p *imagePolicy) attestations(list []pc.Attestation, path string) ([]cosign.Attestation, *mistake) {
	var all []cosign.Attestation
	for i, a := range list {
		// What is neither a short name nor a URI is taken as it is.
		kind, _ := predicateType(a.PredicateType)
		attestation := cosign.Attestation{Name: a.Name, PredicateType: kind}
		if a.Policy != nil {
			var problem *mistake
			if attestation.Policy, problem = p.text(a.Policy, fmt.Sprintf("%s.attestations[%d].policy", path, i)); problem != nil {
				return nil, problem
			}
		}
		all = append(all, attestation)
	}
	return all, nil
}

// writtenAs is what the predicate types are called to a policy over everything.
func writtenAs(list []pc.Attestation) map[string]string {
	written := map[string]string{}
	for _, a := range list {
		written[a.Name] = a.PredicateType
	}
	return written
}

// places reads where signatures and attestations are. Pull secrets are those of
// the namespace of the object that has the image, and are found when that is known.
func (p *imagePolicy) places(list []pc.Source, path string) ([]policy.Place, []identifiedPlace, *mistake) {
	var places []policy.Place
	var known []identifiedPlace
	for i, from := range list {
		var place policy.Place
		if from.TagPrefix != nil {
			place.TagPrefix = *from.TagPrefix
		}
		if from.OCI != "" {
			repository, err := parseRepository(from.OCI)
			if err != nil {
				return nil, nil, wrong(v1alpha1.ReasonInvalid, "%s.source[%d].oci: %s", path, i, short(err))
			}
			place.Repository = repository
		}
		for _, secret := range from.SignaturePullSecrets {
			place.PullSecrets = append(place.PullSecrets, secret.Name)
		}
		places = append(places, place)
		known = append(known, identifiedPlace{Repository: place.Repository.Repository(), TagPrefix: place.TagPrefix})
	}
	return places, known, nil
}
