// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// ObjectPolicy judges an image by the object that it is in, once its Verifier
// has accepted it. evidence is what that one has said of it.
type ObjectPolicy interface {
	// Judge is asked for every request: what it says is never kept. A context
	// that ends makes it Inconclusive.
	Judge(ctx context.Context, evidence string, object *Object) Verdict
}

// Object is what images are in. Nothing of it is read before a rule asks for it;
// then all of it is, once. It is safe for concurrent use.
type Object struct {
	Kind schema.GroupVersionKind
	// JSON is the object as it was sent. It is not changed.
	JSON []byte

	once sync.Once
	err  error
	read struct {
		APIVersion string          `json:"apiVersion"`
		Kind       string          `json:"kind"`
		Metadata   json.RawMessage `json:"metadata"`
		Spec       json.RawMessage `json:"spec"`
	}
	labels labels.Set
}

// Labels are those of the object itself.
func (o *Object) Labels() (labels.Set, error) {
	o.once.Do(o.parse)
	return o.labels, o.err
}

// Spec is the object's spec as it was sent, nil if it has none.
func (o *Object) Spec() (json.RawMessage, error) {
	o.once.Do(o.parse)
	return o.read.Spec, o.err
}

// Metadata is the object's metadata as it was sent, nil if it has none.
func (o *Object) Metadata() (json.RawMessage, error) {
	o.once.Do(o.parse)
	return o.read.Metadata, o.err
}

// parse reads the object. That no name comes twice in it was seen to when its
// images were looked for.
func (o *Object) parse() {
	var metadata struct {
		Labels map[string]string `json:"labels"`
	}
	if o.err = json.Unmarshal(o.JSON, &o.read); o.err == nil && len(o.read.Metadata) > 0 {
		o.err = json.Unmarshal(o.read.Metadata, &metadata)
	}
	if o.err != nil {
		o.err = fmt.Errorf("reading the object: %w", o.err)
	}
	o.labels = metadata.Labels
}

// Match selects objects.
type Match struct {
	Group, Version, Resource string // a Version of * is any
	// Selector is compared with the object's labels; nil is any.
	Selector labels.Selector
}

// matches reports whether one of the matches selects the object; without any
// all are. An object that is not known may be any.
func (o *Object) matches(list []Match) (bool, error) {
	if len(list) == 0 || o == nil {
		return true, nil
	}
	// The guess is right for all kinds that can be written in a match.
	resource, _ := meta.UnsafeGuessKindToResource(o.Kind)
	for _, m := range list {
		if !m.is(resource) {
			continue
		}
		if m.Selector == nil || m.Selector.Empty() {
			return true, nil
		}
		set, err := o.Labels()
		if err != nil {
			return false, err
		}
		if m.Selector.Matches(set) {
			return true, nil
		}
	}
	return false, nil
}

func (m Match) is(r schema.GroupVersionResource) bool {
	return m.Resource == r.Resource && m.Group == r.Group && (m.Version == r.Version || m.Version == anyVersion)
}

// anyVersion stands for every version in a Match.
const anyVersion = "*"
