// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// ObjectName is the name of a Secret or ConfigMap in Pratique's namespace: a
// DNS subdomain as RFC 1123 has it, as Kubernetes asks of both.
//
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=253
// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`
type ObjectName string

// DataKey is a key in the data of a Secret or ConfigMap, as Kubernetes allows
// them.
//
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=253
// +kubebuilder:validation:Pattern=`^[-._a-zA-Z0-9]+$`
type DataKey string

// SecretReference names a Secret in Pratique's namespace.
//
// +kubebuilder:pruning:PreserveUnknownFields
type SecretReference struct {
	// name is the Secret's name.
	// +required
	Name ObjectName `json:"name"`
}

// SecretKeyReference names one key of a Secret in Pratique's namespace.
//
// +kubebuilder:pruning:PreserveUnknownFields
type SecretKeyReference struct {
	// name is the Secret's name.
	// +required
	Name ObjectName `json:"name"`

	// key is the key in the Secret's data.
	// +required
	Key DataKey `json:"key"`
}

// ConfigMapKeyReference names one key of a ConfigMap in Pratique's namespace.
//
// +kubebuilder:pruning:PreserveUnknownFields
type ConfigMapKeyReference struct {
	// name is the ConfigMap's name.
	// +required
	Name ObjectName `json:"name"`

	// key is the key in the ConfigMap's data.
	// +required
	Key DataKey `json:"key"`
}

// TrustRootKind is a kind of object that can hold a trust root.
//
// +kubebuilder:validation:Enum=ConfigMap;Secret
type TrustRootKind string

// The kinds of objects that can hold a trust root.
const (
	TrustRootConfigMap TrustRootKind = "ConfigMap"
	TrustRootSecret    TrustRootKind = "Secret"
)

// TrustRootReference names one key of a ConfigMap or Secret in Pratique's
// namespace, which holds a Sigstore trusted root in JSON
// (application/vnd.dev.sigstore.trustedroot+json).
//
// +kubebuilder:pruning:PreserveUnknownFields
type TrustRootReference struct {
	// kind is ConfigMap or Secret.
	// +required
	Kind TrustRootKind `json:"kind"`

	// name is the object's name.
	// +required
	Name ObjectName `json:"name"`

	// key is the key in the object's data.
	// +required
	Key DataKey `json:"key"`
}

// LabelSelector selects objects by their labels: all of its requirements must
// hold, and an empty one selects everything. It has the shape of the
// selectors of Kubernetes, with bounds, and keeps unknown fields.
//
// +kubebuilder:pruning:PreserveUnknownFields
type LabelSelector struct {
	// matchLabels asks for labels with exactly these values.
	// +optional
	// +kubebuilder:validation:MaxProperties=64
	MatchLabels map[string]string `json:"matchLabels,omitempty"`

	// matchExpressions lists further requirements.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	MatchExpressions []LabelSelectorRequirement `json:"matchExpressions,omitempty"`
}

// LabelSelectorRequirement asks something of one label.
//
// +kubebuilder:pruning:PreserveUnknownFields
// +kubebuilder:validation:XValidation:rule="!(self.operator in ['In', 'NotIn']) || (has(self.values) && size(self.values) > 0)",message="operators In and NotIn need values"
// +kubebuilder:validation:XValidation:rule="!(self.operator in ['Exists', 'DoesNotExist']) || !has(self.values) || size(self.values) == 0",message="operators Exists and DoesNotExist have no values"
type LabelSelectorRequirement struct {
	// key is the label's name.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=317
	Key string `json:"key"`

	// operator relates the label to the values.
	// +required
	// +kubebuilder:validation:Enum=In;NotIn;Exists;DoesNotExist
	Operator metav1.LabelSelectorOperator `json:"operator"`

	// values are for the operators In and NotIn.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=63
	Values []string `json:"values,omitempty"`
}

// AsSelector returns the selector in the form that labels are matched with.
// Nil selects everything: where absence means something else, the caller asks
// for it first. It returns an error for keys, operators and values that
// Kubernetes does not allow.
func (s *LabelSelector) AsSelector() (labels.Selector, error) {
	if s == nil {
		return labels.Everything(), nil
	}
	plain := &metav1.LabelSelector{MatchLabels: s.MatchLabels}
	for _, r := range s.MatchExpressions {
		plain.MatchExpressions = append(plain.MatchExpressions, metav1.LabelSelectorRequirement(r))
	}
	selector, err := metav1.LabelSelectorAsSelector(plain)
	if err != nil {
		return nil, fmt.Errorf("reading label selector: %w", err)
	}
	return selector, nil
}
