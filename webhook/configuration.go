// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pratique-dev/pratique/policy"
)

// Where the server answers.
const (
	PathMutate              = "/mutate"
	PathValidate            = "/validate"
	PathValidateImageConfig = "/validate-imageconfig"
)

const (
	// auditTimeout is how long a request is held up by what never refuses it: half
	// of the default, as who waits gains nothing by it.
	auditTimeout = 5 * time.Second
	// minTimeout is the least that the API server takes
	// (admissionregistration.k8s.io/v1, timeoutSeconds); the most is maxTimeout.
	minTimeout = time.Second
	// servicePort is that of the Service, in front of --bind-address.
	servicePort = 443
	// namespaceLabel has a namespace's name; the API server itself writes it
	// (k8s.io/api core/v1, LabelMetadataName).
	namespaceLabel = "kubernetes.io/metadata.name"
)

// Names of webhooks. The API server puts the name of one that denies into the
// message, and in front of its audit annotations; therefore no two have the same
// name, not even in the two configurations: of two annotations of one name the
// second would be lost.
const (
	namePods         = "pods"
	nameWorkloads    = "workloads"
	nameOthers       = "others"
	nameImageConfigs = "imageconfigs.pratique.dev"
	mutatingSuffix   = ".mutate.pratique.dev"
	validatingSuffix = ".pratique.dev"
)

// ConfigurationOptions say how the API server is to ask.
type ConfigurationOptions struct {
	// Name of both configurations.
	Name string
	// Namespace is Pratique's own. It is always exempt: its Pods must start
	// while there is nobody to ask.
	Namespace string
	// Service is in Namespace, URL is where the server answers instead, without a
	// path: for an API server that reaches no Services. One of both.
	Service, URL string
	// CABundle holds the authorities, in PEM form, of the server's certificate.
	// Without one it is not mentioned: somebody else may write it there.
	CABundle []byte
	// Mode is the server's; "" is Enforce. Audit never keeps anything out: both
	// webhooks are ignored when they fail, and hold nobody up for long.
	Mode policy.Mode
	// FailurePolicy of validation; Fail if empty. That of mutation is always
	// Ignore: what was not pinned, validation refuses.
	FailurePolicy admissionregistrationv1.FailurePolicyType
	// Timeout is 10 s if it is 0; whole seconds, at most 30.
	Timeout time.Duration
	// ExemptNamespaces are not examined, besides Namespace. nil means
	// DefaultExemptNamespaces.
	ExemptNamespaces    []string
	Annotations, Labels map[string]string
	// Owner takes both configurations with it when it is deleted. None if it has
	// no UID. It must be cluster-scoped, as they are.
	Owner metav1.OwnerReference
	// Spare leaves out calls for UPDATEs that change no image. It must be off
	// while a rule in force looks at objects ([policy.Set.ReadsObjectsAnywhere]):
	// such a rule is asked about everything that changes.
	Spare bool
}

// DefaultExemptNamespaces are those without which no node works: of the control
// plane with the network's and the storage's Pods, and of the nodes' heartbeats.
func DefaultExemptNamespaces() []string { return []string{metav1.NamespaceSystem, "kube-node-lease"} }

// Configurations returns the webhook configurations that have the API server ask
// about everything in the catalog, and about ImageConfigs. They are complete
// objects for a server-side apply; the same options give the same objects.
func (c *Catalog) Configurations(o ConfigurationOptions) (
	*admissionregistrationv1.MutatingWebhookConfiguration, *admissionregistrationv1.ValidatingWebhookConfiguration, error,
) {
	if err := o.check(); err != nil {
		return nil, nil, fmt.Errorf("making webhook configurations: %w", err)
	}
	mutating := &admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: o.meta()}
	mutating.SetGroupVersionKind(admissionregistrationv1.SchemeGroupVersion.WithKind("MutatingWebhookConfiguration"))
	for _, g := range groups(c.pinned()) {
		mutating.Webhooks = append(mutating.Webhooks, o.mutating(g))
	}
	validating := &admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: o.meta()}
	validating.SetGroupVersionKind(admissionregistrationv1.SchemeGroupVersion.WithKind("ValidatingWebhookConfiguration"))
	for _, g := range groups(c.rows) {
		validating.Webhooks = append(validating.Webhooks, o.validating(g))
	}
	validating.Webhooks = append(validating.Webhooks, o.imageConfigs())
	return mutating, validating, nil
}

func (o *ConfigurationOptions) check() error {
	var errs []error
	if o.Name == "" || o.Namespace == "" {
		errs = append(errs, errors.New("a name and a namespace are needed"))
	}
	switch {
	case (o.Service == "") == (o.URL == ""):
		errs = append(errs, errors.New("either a Service or a URL is needed"))
	case o.URL != "":
		errs = append(errs, CheckURL(o.URL))
	}
	return errors.Join(append(errs, o.checkFailure())...)
}

// checkFailure refuses what cannot be said of a call that fails.
func (o *ConfigurationOptions) checkFailure() error {
	var errs []error
	if o.Mode != "" && o.Mode != policy.Enforce && o.Mode != policy.Audit {
		errs = append(errs, fmt.Errorf("mode %q is neither Enforce nor Audit", o.Mode))
	}
	switch o.FailurePolicy {
	case "", admissionregistrationv1.Fail, admissionregistrationv1.Ignore:
	default:
		errs = append(errs, fmt.Errorf("failure policy %q is neither Fail nor Ignore", o.FailurePolicy))
	}
	if o.Timeout != 0 {
		errs = append(errs, CheckTimeout(o.Timeout))
	}
	return errors.Join(errs...)
}

// CheckTimeout refuses a [ConfigurationOptions.Timeout] that the API server
// refuses.
func CheckTimeout(t time.Duration) error {
	if t < minTimeout || t > maxTimeout || t%time.Second != 0 {
		return fmt.Errorf("timeout %s is not in whole seconds from %s to %s", t, minTimeout, maxTimeout)
	}
	return nil
}

// CheckURL refuses a [ConfigurationOptions.URL] that the API server refuses, and
// one with a path, which is ours to add.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || strings.ContainsAny(text, "?#") {
		// It is not repeated: it may hold a password.
		return errors.New("the URL is not one such as https://pratique.example.com:9443")
	}
	return nil
}

func (o *ConfigurationOptions) meta() metav1.ObjectMeta {
	meta := metav1.ObjectMeta{Name: o.Name, Annotations: o.Annotations, Labels: o.Labels}
	if o.Owner.UID != "" {
		meta.OwnerReferences = []metav1.OwnerReference{o.Owner}
	}
	return meta
}

// group is the rows that one webhook is sent.
type group struct {
	name     string
	rows     []*Row
	sparable bool
}

// groups puts rows together that share a match condition, in the order of the
// names below; empty groups are left out. A kind is in one group only: nothing
// is asked twice.
func groups(rows []*Row) []group {
	all := []group{{name: namePods, sparable: true}, {name: nameWorkloads, sparable: true}, {name: nameOthers}}
	for _, row := range rows {
		at := slices.IndexFunc(all, func(g group) bool { return g.name == groupOf(row) })
		all[at].rows = append(all[at].rows, row)
	}
	return slices.DeleteFunc(all, func(g group) bool { return len(g.rows) == 0 })
}

func groupOf(row *Row) string {
	switch {
	case !row.sparable():
		return nameOthers
	case row.Group == "" && row.Kind == "Pod":
		return namePods
	default:
		return nameWorkloads
	}
}

func (c *Catalog) pinned() []*Row {
	return slices.DeleteFunc(slices.Clone(c.rows), func(r *Row) bool { return !r.Pinned })
}

// mutating is what pins a group's images.
//
// A call that was spared is not made up for by IfNeeded: a webhook that comes
// later in the same pass and changes an image then has it refused, not pinned.
func (o *ConfigurationOptions) mutating(g group) admissionregistrationv1.MutatingWebhook {
	return admissionregistrationv1.MutatingWebhook{
		Name:                    g.name + mutatingSuffix,
		ClientConfig:            o.client(PathMutate),
		Rules:                   rules(g.rows),
		FailurePolicy:           new(admissionregistrationv1.Ignore),
		MatchPolicy:             new(admissionregistrationv1.Equivalent),
		NamespaceSelector:       o.selector(),
		SideEffects:             sideEffects(),
		TimeoutSeconds:          seconds(o.timeout()),
		AdmissionReviewVersions: []string{"v1"},
		ReinvocationPolicy:      new(admissionregistrationv1.IfNeededReinvocationPolicy),
		MatchConditions:         o.conditions(g),
	}
}

// validating is what examines a group's images.
func (o *ConfigurationOptions) validating(g group) admissionregistrationv1.ValidatingWebhook {
	failure := cmp.Or(o.FailurePolicy, admissionregistrationv1.Fail)
	if o.Mode == policy.Audit {
		failure = admissionregistrationv1.Ignore
	}
	return admissionregistrationv1.ValidatingWebhook{
		Name:                    g.name + validatingSuffix,
		ClientConfig:            o.client(PathValidate),
		Rules:                   rules(g.rows),
		FailurePolicy:           &failure,
		MatchPolicy:             new(admissionregistrationv1.Equivalent),
		NamespaceSelector:       o.selector(),
		SideEffects:             sideEffects(),
		TimeoutSeconds:          seconds(o.timeout()),
		AdmissionReviewVersions: []string{"v1"},
		MatchConditions:         o.conditions(g),
	}
}

// imageConfigs is what tells the author of an ImageConfig at once what is wrong.
// Nothing hangs on it, so it is ignored when it fails: what it would have refused
// is not Ready once it is compiled, and holds images back.
func (o *ConfigurationOptions) imageConfigs() admissionregistrationv1.ValidatingWebhook {
	return admissionregistrationv1.ValidatingWebhook{
		Name:         nameImageConfigs,
		ClientConfig: o.client(PathValidateImageConfig),
		Rules: []admissionregistrationv1.RuleWithOperations{{
			Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create, admissionregistrationv1.Update},
			Rule: admissionregistrationv1.Rule{
				APIGroups: []string{imageConfigGroup}, APIVersions: []string{imageConfigVersion}, Resources: []string{imageConfigResource},
				Scope: new(admissionregistrationv1.ClusterScope),
			},
		}},
		FailurePolicy:           new(admissionregistrationv1.Ignore),
		MatchPolicy:             new(admissionregistrationv1.Equivalent),
		SideEffects:             sideEffects(),
		TimeoutSeconds:          seconds(auditTimeout),
		AdmissionReviewVersions: []string{"v1"},
	}
}

func (o *ConfigurationOptions) client(path string) admissionregistrationv1.WebhookClientConfig {
	config := admissionregistrationv1.WebhookClientConfig{CABundle: o.CABundle}
	if o.URL != "" {
		config.URL = new(strings.TrimRight(o.URL, "/") + path)
		return config
	}
	config.Service = &admissionregistrationv1.ServiceReference{
		Namespace: o.Namespace, Name: o.Service, Path: &path, Port: new(int32(servicePort)),
	}
	return config
}

// selector leaves the exempt namespaces out, by the label that the API server
// itself writes. To what has no namespace, as Crossplane's packages, the API
// server applies no such selector: it is always asked about.
func (o *ConfigurationOptions) selector() *metav1.LabelSelector {
	exempt := o.ExemptNamespaces
	if exempt == nil {
		exempt = DefaultExemptNamespaces()
	}
	exempt = append(slices.Clone(exempt), o.Namespace)
	slices.Sort(exempt)
	return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{
		Key: namespaceLabel, Operator: metav1.LabelSelectorOpNotIn, Values: slices.Compact(exempt),
	}}}
}

func (o *ConfigurationOptions) conditions(g group) []admissionregistrationv1.MatchCondition {
	if !o.Spare || !g.sparable {
		return nil
	}
	return spare(g.rows)
}

func (o *ConfigurationOptions) timeout() time.Duration {
	if o.Mode == policy.Audit {
		return auditTimeout
	}
	return cmp.Or(o.Timeout, defaultTimeout)
}

// sideEffects is None, also for requests that are no dry run: a review alone has
// nothing written, neither in the cluster nor elsewhere. Registries are only read;
// pull secrets are copied because of ImageConfigs and namespaces, never because of
// a review; what the server remembers of its answers changes none of them. So a
// dry run is examined and pinned like anything else.
func sideEffects() *admissionregistrationv1.SideEffectClass {
	return new(admissionregistrationv1.SideEffectClassNone)
}

func seconds(d time.Duration) *int32 { return new(int32(d / time.Second)) } //nolint:gosec // at most maxTimeout
