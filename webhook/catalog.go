// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"bytes"
	_ "embed" // catalog.yaml
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

//go:embed catalog.yaml
var embeddedCatalog string

// Written says how a kind writes its image references.
type Written string

// WrittenPlain says that the string is the reference, as a Pod's is.
const WrittenPlain Written = "Plain"

// Decides says whether anything examines an image after this object was admitted.
type Decides string

const (
	// DecidesHere says that nothing comes after, so Inconclusive denies too (spec section 1).
	DecidesHere Decides = "Here"
	// DecidesLater says that what the object makes is examined again, so Inconclusive is only a warning.
	DecidesLater Decides = "Later"
)

// Floating says what becomes of a tag in a kind that decides here and is not pinned.
type Floating string

const (
	// FloatingWarn accepts it with a warning.
	FloatingWarn Floating = "Warn"
	// FloatingDeny rejects it.
	FloatingDeny Floating = "Deny"
)

// Blank says what an absent, empty or all-space reference means.
type Blank string

const (
	// BlankExamine hands it out like any other; it is no valid reference.
	BlankExamine Blank = "Examine"
	// BlankSkip hands it out as skipped: it will be filled in later, or is not used.
	BlankSkip Blank = "Skip"
)

// SecretNamespace says where the pull secrets that an object names are looked up.
type SecretNamespace string

const (
	// SecretNamespaceOwn is the namespace of the request.
	SecretNamespaceOwn SecretNamespace = "Own"
	// SecretNamespaceCrossplane is the namespace that --crossplane-namespace names.
	SecretNamespaceCrossplane SecretNamespace = "Crossplane"
)

// Row is what the catalog knows of one kind. It does not change after loading; do not write to its slices.
type Row struct {
	Group        string   // "" is core
	Versions     []string // intercepted versions, in the catalog's order
	Kind         string
	Resource     string   // plural, lower case
	Subresources []string // intercepted besides the resource itself

	Images       []string // every path that holds a reference, shorthands written out
	PullSecrets  []string // every path that holds the name of a pull secret
	Placeholders []string // RE2

	Written         Written
	Pinned          bool
	Decides         Decides
	Floating        Floating
	Blank           Blank
	SecretNamespace SecretNamespace

	podSpecs     []string
	placeholders []*regexp.Regexp
	root         *node
	readers      *readers
}

// Catalog is the table of all kinds whose images are examined. It does not change after loading and may be used by
// many goroutines.
type Catalog struct {
	rows   []*Row
	byKind map[groupKind]*Row
}

type groupKind struct{ group, kind string }

func (k groupKind) String() string {
	if k.group == "" {
		return k.kind
	}
	return k.kind + "." + k.group
}

// LoadCatalog reads the embedded catalog and then each extra document: YAML or JSON of the embedded file's shape,
// {"rows": […]}. Unknown names, duplicate names and values outside the listed ones are errors that name the row.
//
// An extra row for a kind that is already there only ever adds to it: versions, subresources and paths are appended.
// It may also tighten (decides: Here, floating: Deny, blank: Examine); every other setting must be left out or be
// the same, and placeholders are refused, since each of these could end the examination of an image that is examined
// without the row.
func LoadCatalog(extra ...[]byte) (*Catalog, error) {
	c := &Catalog{byKind: map[groupKind]*Row{}}
	if err := c.add([]byte(embeddedCatalog), false); err != nil {
		return nil, fmt.Errorf("loading the embedded catalog: %w", err)
	}
	for i, doc := range extra {
		if err := c.add(doc, true); err != nil {
			return nil, fmt.Errorf("loading additional catalog %d: %w", i+1, err)
		}
	}
	resources := map[groupKind]*Row{}
	pool := new(readers)
	for _, row := range c.rows {
		resource := groupKind{row.Group, row.Resource}
		if other, ok := resources[resource]; ok {
			return nil, fmt.Errorf("loading the catalog: %s and %s both name the resource %q", other.Kind, row.Kind, row.Resource)
		}
		resources[resource] = row
		row.readers = pool
		if err := row.compile(); err != nil {
			return nil, fmt.Errorf("loading the catalog: kind %s: %w", groupKind{row.Group, row.Kind}, err)
		}
	}
	return c, nil
}

// Lookup returns the row of the kind that a request is about (request.kind, the kind that the webhook's rules asked
// for, not requestKind).
//
// It finds nothing for an unknown kind, and also for a version or subresource that the row does not list: where such
// an object keeps its images is not known, so looking in the known places could miss one. Only what Rules lists is
// sent to a rightly configured webhook, with matchPolicy Equivalent in a listed version; whoever gets false
// must therefore call the object Inconclusive, never admit it unexamined.
func (c *Catalog) Lookup(group, version, kind, subresource string) (*Row, bool) {
	row, ok := c.byKind[groupKind{group, kind}]
	if !ok || !slices.Contains(row.Versions, version) {
		return nil, false
	}
	if subresource != "" && !slices.Contains(row.Subresources, subresource) {
		return nil, false
	}
	return row, true
}

// Rows returns one row for each kind, in the catalog's order.
func (c *Catalog) Rows() []*Row { return slices.Clone(c.rows) }

// Rules returns what the validating webhook must be sent: CREATE and UPDATE of every row's resource and listed
// subresources. One rule for each group and set of versions, in the catalog's order, resources sorted.
func (c *Catalog) Rules() []admissionregistrationv1.RuleWithOperations {
	return rules(c.rows)
}

// MutatingRules returns what the mutating webhook must be sent: Rules, of the rows that may be pinned.
func (c *Catalog) MutatingRules() []admissionregistrationv1.RuleWithOperations {
	return rules(slices.DeleteFunc(slices.Clone(c.rows), func(r *Row) bool { return !r.Pinned }))
}

func rules(rows []*Row) []admissionregistrationv1.RuleWithOperations {
	var out []admissionregistrationv1.RuleWithOperations
	for _, row := range rows {
		resources := []string{row.Resource}
		// "pods" does not match "pods/ephemeralcontainers", and "pods/*" would put us in the way of bindings.
		for _, sub := range row.Subresources {
			resources = append(resources, row.Resource+"/"+sub)
		}
		versions := slices.Sorted(slices.Values(row.Versions))
		at := slices.IndexFunc(out, func(r admissionregistrationv1.RuleWithOperations) bool {
			return r.APIGroups[0] == row.Group && slices.Equal(r.APIVersions, versions)
		})
		if at >= 0 {
			out[at].Resources = append(out[at].Resources, resources...)
			continue
		}
		scope := admissionregistrationv1.AllScopes
		out = append(out, admissionregistrationv1.RuleWithOperations{
			Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create, admissionregistrationv1.Update},
			Rule: admissionregistrationv1.Rule{
				APIGroups: []string{row.Group}, APIVersions: versions, Resources: resources, Scope: &scope,
			},
		})
	}
	for i := range out {
		slices.Sort(out[i].Resources)
	}
	return out
}

// rowDoc is a row as it is written in a document: several kinds may share one.
type rowDoc struct {
	Group           *string         `json:"group"`
	Versions        []string        `json:"versions"`
	Kinds           []kindDoc       `json:"kinds"`
	Subresources    []string        `json:"subresources"`
	PodSpecs        []string        `json:"podSpecs"`
	Images          []string        `json:"images"`
	PullSecrets     []string        `json:"pullSecrets"`
	Placeholders    []string        `json:"placeholders"`
	Written         Written         `json:"written"`
	Blank           Blank           `json:"blank"`
	Pinned          *bool           `json:"pinned"`
	Decides         Decides         `json:"decides"`
	Floating        Floating        `json:"floating"`
	SecretNamespace SecretNamespace `json:"secretNamespace"`
}

type kindDoc struct {
	Kind     string `json:"kind"`
	Resource string `json:"resource"`
}

// add reads a document's rows into the catalog; with extend, a row of a known kind adds to that kind's row.
func (c *Catalog) add(doc []byte, extend bool) error {
	// The YAML parser reads the first document of a stream only; the rest would be dropped without a word.
	if bytes.Contains(bytes.TrimSpace(doc), []byte("\n---")) {
		return errors.New("more than one YAML document")
	}
	asJSON, err := yaml.YAMLToJSONStrict(doc)
	if err != nil {
		return fmt.Errorf("parsing YAML: %w", err)
	}
	var file struct {
		Rows []json.RawMessage `json:"rows"`
	}
	if err := decodeStrict(asJSON, &file); err != nil {
		return err
	}
	for i, raw := range file.Rows {
		if err := c.addRow(raw, extend); err != nil {
			return fmt.Errorf("rows[%d]: %w", i, err)
		}
	}
	return nil
}

func (c *Catalog) addRow(raw []byte, extend bool) error {
	var doc rowDoc
	if err := decodeStrict(raw, &doc); err != nil {
		return err
	}
	if doc.Group == nil {
		return errors.New(`group: missing (core is "")`)
	}
	if len(doc.Kinds) == 0 {
		return errors.New("kinds: empty")
	}
	for _, kind := range doc.Kinds {
		key := groupKind{*doc.Group, kind.Kind}
		row, known := c.byKind[key]
		var err error
		switch {
		case !known:
			row, err = newRow(&doc, kind)
		case extend:
			row, err = row.extended(&doc, kind)
		default:
			err = errors.New("kinds: listed twice")
		}
		if err == nil {
			err = row.check()
		}
		if err != nil {
			return fmt.Errorf("kind %s: %w", key, err)
		}
		if known {
			c.rows[slices.Index(c.rows, c.byKind[key])] = row
		} else {
			c.rows = append(c.rows, row)
		}
		c.byKind[key] = row
	}
	return nil
}

// decodeStrict is sigs.k8s.io/json's strict decoding (names in their exact case, unknown and duplicate ones refused),
// with everything that is wrong in one error.
func decodeStrict(data []byte, into any) error {
	wrong, err := kjson.UnmarshalStrict(data, into)
	if err != nil {
		return err
	}
	return errors.Join(wrong...)
}

func newRow(doc *rowDoc, kind kindDoc) (*Row, error) {
	if doc.Decides == "" {
		return nil, errors.New("decides: missing (Here or Later)")
	}
	row := &Row{
		Group: *doc.Group, Kind: kind.Kind, Resource: kind.Resource,
		Versions: doc.Versions, Subresources: doc.Subresources,
		Images: doc.Images, PullSecrets: doc.PullSecrets, Placeholders: doc.Placeholders, podSpecs: doc.PodSpecs,
		Written: orDefault(doc.Written, WrittenPlain), Blank: orDefault(doc.Blank, BlankExamine),
		Pinned: doc.Pinned != nil && *doc.Pinned, Decides: doc.Decides,
		Floating:        orDefault(doc.Floating, FloatingWarn),
		SecretNamespace: orDefault(doc.SecretNamespace, SecretNamespaceOwn),
	}
	return row, nil
}

func orDefault[T ~string](value, otherwise T) T {
	if value == "" {
		return otherwise
	}
	return value
}

// extended returns the row with what doc adds to it, or an error if doc would take anything away (see LoadCatalog).
func (r *Row) extended(doc *rowDoc, kind kindDoc) (*Row, error) {
	row := *r
	row.Versions = union(r.Versions, doc.Versions)
	row.Subresources = union(r.Subresources, doc.Subresources)
	row.Images = slices.Concat(r.Images, doc.Images)
	row.PullSecrets = slices.Concat(r.PullSecrets, doc.PullSecrets)
	row.podSpecs = slices.Concat(r.podSpecs, doc.PodSpecs)

	var wrong []error
	if kind.Resource != r.Resource {
		wrong = append(wrong, fmt.Errorf("resource: is %q, cannot become %q", r.Resource, kind.Resource))
	}
	if len(doc.Placeholders) > 0 {
		wrong = append(wrong, errors.New("placeholders: cannot be added to a kind that is already in the catalog"))
	}
	if doc.Pinned != nil && *doc.Pinned != r.Pinned {
		wrong = append(wrong, fmt.Errorf("pinned: is %t, cannot become %t", r.Pinned, *doc.Pinned))
	}
	// "" as the strict value: nothing is stricter, the setting stays.
	wrong = append(wrong,
		tighten("written", &row.Written, doc.Written, ""),
		tighten("blank", &row.Blank, doc.Blank, BlankExamine),
		tighten("decides", &row.Decides, doc.Decides, DecidesHere),
		tighten("floating", &row.Floating, doc.Floating, FloatingDeny),
		tighten("secretNamespace", &row.SecretNamespace, doc.SecretNamespace, ""))
	if err := errors.Join(wrong...); err != nil {
		return nil, err
	}
	return &row, nil
}

// tighten sets *have to want if that is the strict value; leaving it as it is is always allowed.
func tighten[T ~string](name string, have *T, want, strict T) error {
	if want == "" || want == *have {
		return nil
	}
	if want != strict {
		return fmt.Errorf("%s: is %q, cannot become %q", name, *have, want)
	}
	*have = want
	return nil
}

func union(a, b []string) []string {
	out := slices.Clone(a)
	for _, s := range b {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// What the names of the API are made of: no wildcard gets into a rule, no slash into a resource.
const (
	groupPattern       = `^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*)?$`
	versionPattern     = `^v[0-9]+((alpha|beta)[0-9]+)?$`
	kindPattern        = `^[A-Z][A-Za-z0-9]*$`
	resourcePattern    = `^[a-z][a-z0-9]*$`
	subresourcePattern = `^[a-z]+$`
)

// check refuses a row with a value that this version does not know, or that contradicts another.
func (r *Row) check() error {
	wrong := []error{
		matches("group", groupPattern, r.Group),
		matches("versions", versionPattern, r.Versions...),
		matches("kind", kindPattern, r.Kind),
		matches("resource", resourcePattern, r.Resource),
		matches("subresources", subresourcePattern, r.Subresources...),
		oneOf("written", r.Written, WrittenPlain),
		oneOf("decides", r.Decides, DecidesHere, DecidesLater),
		oneOf("floating", r.Floating, FloatingWarn, FloatingDeny),
		oneOf("blank", r.Blank, BlankExamine, BlankSkip),
		oneOf("secretNamespace", r.SecretNamespace, SecretNamespaceOwn, SecretNamespaceCrossplane),
	}
	if len(r.Versions) == 0 {
		wrong = append(wrong, errors.New("versions: empty"))
	}
	if len(r.Images)+len(r.podSpecs) == 0 {
		wrong = append(wrong, errors.New("images, podSpecs: both empty"))
	}
	if len(r.Placeholders) > 0 && r.Decides != DecidesLater {
		wrong = append(wrong, errors.New("placeholders: only for kinds that decide Later"))
	}
	for _, sub := range r.Subresources {
		// Spec section 1: not intercepted. They change no image, and are on the way of every Pod and every node.
		if slices.Contains([]string{"status", "scale", "resize", "binding", "eviction"}, sub) {
			wrong = append(wrong, fmt.Errorf("subresources: %q holds no image and is not intercepted", sub))
		}
	}
	return errors.Join(wrong...)
}

func matches(name, pattern string, values ...string) error {
	re := regexp.MustCompile(pattern)
	for i, value := range values {
		if !re.MatchString(value) {
			return fmt.Errorf("%s: %q does not match %s", name, value, pattern)
		}
		if slices.Contains(values[:i], value) {
			return fmt.Errorf("%s: %q is listed twice", name, value)
		}
	}
	return nil
}

func oneOf[T ~string](name string, value T, known ...T) error {
	if slices.Contains(known, value) {
		return nil
	}
	return fmt.Errorf("%s: unknown value %q, known are %q", name, value, known)
}
