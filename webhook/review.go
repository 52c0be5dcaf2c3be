// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"errors"
	"fmt"
	"mime"
	"net/http"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The two passes of admission, and what is counted like one: the check of
// ImageConfigs.
const (
	passMutate      = "mutate"
	passValidate    = "validate"
	passImageConfig = "validate-imageconfig"
)

// review is what is read of an AdmissionReview. The objects stay as they were
// sent; they are looked at only along the paths of the catalog.
type review struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Request    *request `json:"request"`
}

type request struct {
	UID         string                  `json:"uid"`
	Kind        metav1.GroupVersionKind `json:"kind"`
	SubResource string                  `json:"subResource"`
	Name        string                  `json:"name"`
	Namespace   string                  `json:"namespace"`
	Operation   admissionv1.Operation   `json:"operation"`
	UserInfo    userInfo                `json:"userInfo"`
	Object      jsontext.Value          `json:"object"`
	OldObject   jsontext.Value          `json:"oldObject"`
}

type userInfo struct {
	Groups []string `json:"groups"`
}

// httpError is a request that is no AdmissionReview: it has no answer in one.
type httpError struct {
	status  int
	message string
}

func (e *httpError) Error() string { return e.message }

// checkHeader refuses what is not sent as reviews are.
func checkHeader(r *http.Request) error {
	if r.Method != http.MethodPost {
		return &httpError{http.StatusMethodNotAllowed, "an AdmissionReview is sent by POST"}
	}
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		return &httpError{http.StatusUnsupportedMediaType, "an AdmissionReview is sent as application/json"}
	}
	return nil
}

// parseReview reads an AdmissionReview of the version v1.
func parseReview(untrustedBody []byte) (*request, error) {
	var got review
	if err := json.Unmarshal(untrustedBody, &got); err != nil {
		return nil, &httpError{http.StatusBadRequest, "the body is not an AdmissionReview: " + describe(err)}
	}
	if got.APIVersion != admissionv1.SchemeGroupVersion.String() || got.Kind != "AdmissionReview" {
		return nil, &httpError{http.StatusBadRequest, fmt.Sprintf("the body is %.64q of %.64q; only AdmissionReview of %q is answered",
			got.Kind, got.APIVersion, admissionv1.SchemeGroupVersion)}
	}
	if got.Request == nil || got.Request.UID == "" {
		return nil, &httpError{http.StatusBadRequest, "the AdmissionReview has no request with a uid"}
	}
	if err := got.Request.check(); err != nil {
		return nil, err
	}
	return got.Request, nil
}

// The lengths of what is logged of each review, in bytes, as an API server has
// them: a uid of its own has 36, kinds and subresources are labels, and the names
// of objects are at most subdomains (k8s.io/apimachinery, validation).
const (
	maxUID   = 128
	maxLabel = 63
	maxName  = 253
)

// check refuses what no API server sends: it would be logged, and whoever reaches
// the port could fill the log.
func (r *request) check() error {
	for _, field := range []struct {
		name, value string
		most        int
	}{
		{"uid", r.UID, maxUID},
		{"kind", r.Kind.Kind, maxLabel},
		{"subResource", r.SubResource, maxLabel},
		{"namespace", r.Namespace, maxLabel},
		{"name", r.Name, maxName},
	} {
		if len(field.value) > field.most {
			return &httpError{http.StatusBadRequest, fmt.Sprintf("the review's %s is longer than %d bytes", field.name, field.most)}
		}
	}
	switch r.Operation {
	case admissionv1.Create, admissionv1.Update, admissionv1.Delete, admissionv1.Connect:
		return nil
	default:
		return &httpError{http.StatusBadRequest, "the review has no operation that is known"}
	}
}

// intercepted reports whether the operation brings something in.
func (r *request) intercepted() bool {
	return r.Operation != admissionv1.Delete && r.Operation != admissionv1.Connect
}

// describe says what is wrong with JSON without repeating it.
func describe(err error) string {
	if errors.Is(err, jsontext.ErrDuplicateName) {
		return "a name comes twice in one object"
	}
	if syntactic, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		return fmt.Sprintf("malformed JSON at byte %d", syntactic.ByteOffset)
	}
	if semantic, ok := errors.AsType[*json.SemanticError](err); ok {
		return fmt.Sprintf("unexpected JSON at %q", semantic.JSONPointer)
	}
	return "malformed JSON"
}

// absent reports whether a review's object is not there.
func absent(object jsontext.Value) bool {
	return len(object) == 0 || object.Kind() == 'n'
}
