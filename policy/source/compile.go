// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/pratique-dev/pratique/api/v1alpha1"
	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/containers"
	"github.com/pratique-dev/pratique/policy/cosign"
	"github.com/pratique-dev/pratique/policy/language"
	"github.com/pratique-dev/pratique/policy/trust"
	"github.com/pratique-dev/pratique/reference"
	"github.com/pratique-dev/pratique/registry/credential"
)

// inForce is the message of an ImageConfig of which there is nothing to tell.
const inForce = "compiled and in force"

// maxType is how much of a Secret's type is repeated, in bytes.
const maxType = 253

// Compiled is an ImageConfig made ready, or what is wrong with it.
type Compiled struct {
	Rule *policy.Rule
	// Rewritten is the rule for the names that Rule rewrites to, nil if there is none.
	Rewritten  *policy.Rule
	Generation int64
	// Ready, Reason and Message are those of the condition Ready.
	Ready   bool
	Reason  string
	Message string
	// Pending says that it is not ready because what it rests on is being fetched.
	Pending bool
	// retry says that compiling it again may come to something else.
	retry bool
}

// mistake is why an ImageConfig is not ready.
type mistake struct {
	reason  string
	message string
}

func (m *mistake) Error() string { return m.message }

func wrong(reason, format string, args ...any) *mistake {
	return &mistake{reason: reason, message: fmt.Sprintf(format, args...)}
}

// Compiler compiles ImageConfigs, Crossplane's too, and ClusterImagePolicies.
type Compiler struct {
	// Cosign is what compiled rules verify with.
	Cosign cosign.Options
	// PolicyController says how policy-controller's objects are read.
	PolicyController PolicyController
	// InjectInto names the namespaces whose Pods may be given pull secrets; AllNamespaces
	// alone is all of them.
	InjectInto []string
	// Clouds returns the credentials that a cloud gives for its registries. Nil
	// means that none is asked.
	Clouds func(v1alpha1.CredentialProvider) credential.Config

	// Trust returns the trust root of authorities that name none, Keys the public
	// key in PEM form that a key service has under a reference. Neither waits: an
	// error says why there is none yet, and who waits is told by Again. Nil means
	// that there are none.
	Trust func() (*trust.Root, error)
	Keys  func(reference string) ([]byte, error)
	// Check reports why a policy cannot be evaluated. Nil means that none can. An
	// error that is not the policy's own fault does not last: it is asked again.
	Check func(language.Policy) error

	// Containers returns the policy.json in force, whose rules come beside the
	// compiled ones, and the registries.d that is in force for all; whoever changes
	// it tells by Again. A nil func and a nil result are none.
	Containers func() *containers.Loaded
	// ContainersSource is what requirements of a policy.json are verified with.
	ContainersSource containers.Source

	// CrossplaneNamespace is where Crossplane's ImageConfigs have their Secrets.
	CrossplaneNamespace string

	// namespace is Pratique's own.
	namespace string
	// cluster says that kubectl shows the conditions of what is compiled.
	cluster bool
}

// Compile compiles an ImageConfig, given as JSON. It returns an error only for
// what is no ImageConfig at all; every mistake in one makes a rule that is not
// ready, under which what it selects is Inconclusive.
func (c Compiler) Compile(raw []byte, objects Objects) (Compiled, error) {
	config, err := v1alpha1.Decode(raw)
	if config == nil {
		return Compiled{}, err
	}
	compilation := &compilation{
		compiler: c, config: config, objects: objects,
		rule: &policy.Rule{Kind: v1alpha1.KindImageConfig, Name: config.Name, Mode: policy.Enforce},
	}
	if err != nil {
		compilation.invalid = []error{err}
		compilation.rule.Everywhere = mayMatchMore(raw)
	} else {
		for _, problem := range config.Validate() {
			compilation.invalid = append(compilation.invalid, problem)
		}
	}
	return compilation.run(), nil
}

// mayMatchMore reports whether spec has a name that may be meant to be
// matchImages: what it lists is not read.
func mayMatchMore(raw []byte) bool {
	var object struct {
		Spec map[string]json.RawMessage `json:"spec"`
	}
	if err := json.Unmarshal(raw, &object); err != nil {
		return true
	}
	for name := range object.Spec {
		if name != "matchImages" && strings.HasPrefix(strings.ToLower(name), "match") {
			return true
		}
	}
	return false
}

// compilation is one ImageConfig on its way to a rule.
type compilation struct {
	compiler Compiler
	config   *v1alpha1.ImageConfig
	objects  Objects
	rule     *policy.Rule
	// invalid is what keeps the ImageConfig from being read as it is meant.
	invalid []error
	// problems make the rule not ready. Those that are only about how images are
	// pulled are kept apart: they hold nothing back.
	problems, pullProblems []*mistake
	// retry says that the compiler itself had trouble.
	retry bool
	// notes are what should be known of a rule that is ready.
	notes []string
}

func (c *compilation) run() Compiled {
	if c.config.Spec.Mode == v1alpha1.ModeAudit {
		c.rule.Mode = policy.Audit
	}
	c.matchImages()
	c.matchNamespaces()
	if len(c.invalid) > 0 {
		problem := wrong(v1alpha1.ReasonInvalid, "%v", utilerrors.NewAggregate(c.invalid))
		if c.rule.Everywhere {
			problem.message += "; which images it is for cannot be read, so all are held back"
		}
		c.problems = append(c.problems, problem)
	}
	for _, path := range unsupported(&c.config.Spec) {
		c.problems = append(c.problems, wrong(v1alpha1.ReasonNotSupported, "%s: not supported by this version", path))
	}
	c.rewrite()
	c.authentication()
	c.transport()
	c.noteTags()
	if len(c.invalid) > 0 {
		c.withhold()
	}
	if len(c.problems) == 0 && c.config.Spec.Verification != nil {
		if c.engine() == containers.Engine {
			c.requirements()
		} else {
			c.verification()
		}
	}
	return c.result()
}

// noteTags tells of prefixes by which a registry section is found only for as
// long as an image has no digest: beside one a tag is a claim, and what is shown
// to a registry must not hang on it.
func (c *compilation) noteTags() {
	if c.rule.Authentication == nil && c.rule.Transport == nil {
		return
	}
	for _, prefix := range c.rule.Prefixes {
		if prefix.Reach == reference.ReachTag {
			c.notes = append(c.notes, fmt.Sprintf(
				"its registry section does not count for images of %s that have a digest, as pinned ones do: match without the tag", prefix.Text))
		}
	}
}

// withhold takes back what a spec says of registries that cannot be read as it
// is meant: the mistake may be in the very selector that says for whom it is.
// Nobody is asked by it, and no shorter prefix's steps in.
func (c *compilation) withhold() {
	c.rule.Unread = true
	c.rule.Authentication = &policy.Authentication{}
	c.rule.Transport = unusable(fmt.Sprintf("ImageConfig %q cannot be read", c.config.Name))
}

// result is what came of it all.
func (c *compilation) result() Compiled {
	compiled := Compiled{
		Rule: c.rule, Generation: c.config.Generation,
		Ready: true, Reason: v1alpha1.ReasonCompiled, Message: inForce, retry: c.retry,
	}
	for _, note := range c.notes {
		compiled.Message += "; " + note
	}
	if all := slices.Concat(c.problems, c.pullProblems); len(all) > 0 {
		compiled.Ready, compiled.Reason, compiled.Message = false, all[0].reason, all[0].message
		compiled.Pending = slices.ContainsFunc(all, func(m *mistake) bool { return m.reason == v1alpha1.ReasonPending })
		if len(all) > 1 {
			compiled.Message = fmt.Sprintf("%s (and %d more)", all[0].message, len(all)-1)
		}
	}
	if len(c.problems) > 0 {
		// Whatever the mistake is, the rule might have asked for more.
		c.rule.Verification = c.compiler.held(compiled, c.engine())
	}
	compiled.Rewritten = forRewritten(c.rule)
	if len(c.problems) > 0 {
		c.rule.Rewrite = nil
	}
	return compiled
}

// held is the verification of a rule that is not ready. Its verdict is fixed,
// and therefore not cached under a hash.
func (c Compiler) held(compiled Compiled, engine string) *policy.Verification {
	verdict := policy.Undecided(policy.ReasonNotReady, "it is not ready: %s", oneLine(compiled.Message))
	if c.cluster {
		verdict.Message += "; see: kubectl describe imageconfigs." + v1alpha1.GroupName + " " + compiled.Rule.Name
	}
	return &policy.Verification{Engine: engine, Fixed: &verdict}
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// matchImages reads which images are meant. If that cannot be read of one
// prefix, or there is none, it may be any image: then the rule holds back all.
func (c *compilation) matchImages() {
	list := c.config.Spec.MatchImages
	if len(list) == 0 {
		c.rule.Everywhere = true
	}
	for i, match := range list {
		prefixes, err := reference.ParsePrefix(match.Prefix)
		if err != nil {
			c.invalidPrefix(field.NewPath("spec", "matchImages").Index(i).Child("prefix"), err)
		}
		if err != nil || match.Type != v1alpha1.MatchPrefix {
			c.rule.Everywhere = true
			continue
		}
		c.rule.Prefixes = append(c.rule.Prefixes, prefixes...)
	}
}

// invalidPrefix tells of a prefix, unless validation has told of it already.
func (c *compilation) invalidPrefix(path *field.Path, err error) {
	for _, known := range c.invalid {
		if problem, ok := errors.AsType[*field.Error](known); ok && problem.Field == path.String() {
			return
		}
	}
	c.invalid = append(c.invalid, fmt.Errorf("%s: %w", path, err))
}

// matchNamespaces reads which namespaces are meant. Of an ImageConfig that
// cannot be read these are all: the mistake may be in the selector, or be what
// stands in its place.
func (c *compilation) matchNamespaces() {
	if len(c.invalid) > 0 {
		return
	}
	selector, err := c.config.Spec.NamespaceSelector.AsSelector()
	if err != nil {
		c.invalid = append(c.invalid, fmt.Errorf("spec.namespaceSelector: %w", err))
		return
	}
	if !selector.Empty() {
		c.rule.Namespaces = selector
	}
}

// authentication reads the credentials that the rule brings, and where they may
// be sent. A rule whose secret is missing, or whose cloud is not asked, is still
// the one that is selected, so that a shorter prefix's secret does not step in.
func (c *compilation) authentication() {
	registry := c.config.Spec.Registry
	if registry == nil || registry.Authentication == nil {
		return
	}
	c.rule.Authentication = &policy.Authentication{}
	for _, realm := range registry.Authentication.Realms {
		c.rule.Authentication.Realms = append(c.rule.Authentication.Realms, reference.CanonicalHost(string(realm)))
	}
	if provider := registry.Authentication.Provider; provider != "" && provider != v1alpha1.ProviderGeneric {
		c.cloud(provider)
		return
	}
	if registry.Authentication.PullSecretRef == nil {
		return
	}
	const path = "spec.registry.authentication.pullSecretRef"
	name := string(registry.Authentication.PullSecretRef.Name)
	c.inject(name, registry.Authentication.Inject)
	secret, problem := c.secret(path, name)
	if problem != nil {
		c.bringsNone(problem)
		return
	}
	config, err := parsePullSecret(secret)
	if err != nil {
		c.bringsNone(wrong(v1alpha1.ReasonSecretInvalid, "%s: secret %q: %v", path, name, err))
		return
	}
	c.rule.Authentication.Credentials = config
}

// bringsNone notes why the rule has no credentials of its own.
func (c *compilation) bringsNone(problem *mistake) {
	c.pullProblems = append(c.pullProblems, problem)
	c.rule.Authentication.Problem = fmt.Sprintf("ImageConfig %q: %s", c.config.Name, oneLine(problem.message))
}

// cloud reads the credentials of a rule that names a cloud in place of a secret.
func (c *compilation) cloud(provider v1alpha1.CredentialProvider) {
	if c.compiler.Clouds == nil {
		c.bringsNone(wrong(v1alpha1.ReasonNotSupported,
			"spec.registry.authentication.provider: %s: no cloud is asked for credentials (--cloud-credentials=false)", provider))
		return
	}
	c.rule.Authentication.Credentials = c.compiler.Clouds(provider)
}

// secret finds one of Pratique's own Secrets.
func (c *compilation) secret(path, name string) (*corev1.Secret, *mistake) {
	return c.secretAt(entry{path: path, name: name})
}

// anotherType says so of a Secret. A type may be long, and the text is kept.
func anotherType(secret *corev1.Secret) string {
	return fmt.Sprintf("its type is %q, not %s", clip(string(secret.Type), maxType), credential.Types)
}

func parsePullSecret(secret *corev1.Secret) (credential.Config, error) {
	if !credential.HoldsCredentials(string(secret.Type)) {
		return credential.Config{}, errors.New(anotherType(secret))
	}
	return credential.ParseSecret(string(secret.Type), secret.Data)
}
