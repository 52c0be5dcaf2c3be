// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// maxReview bounds an AdmissionReview, in bytes. The API server takes requests
// of up to 3 MiB (k8s.io/apiserver, MaxRequestBodyBytes), and a review of an
// UPDATE holds the object twice, with escapes and the user's extra fields.
const maxReview = 7 << 20

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

// readInTime reads the AdmissionReview of a request that arrives in time. Then
// the deadline is lifted, or it would end the connection during the
// examination; after an error it stays, because the rest of the request is
// still to be read.
func readInTime(w http.ResponseWriter, r *http.Request, due time.Time) (*request, error) {
	connection := http.NewResponseController(w)
	within := time.Now().Add(readWithin)
	if due.Before(within) {
		within = due
	}
	if err := connection.SetReadDeadline(within); err != nil {
		return nil, fmt.Errorf("bounding the time to read: %w", err)
	}
	asked, err := readReview(r)
	if err != nil {
		return nil, err
	}
	if err := connection.SetReadDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("lifting the time to read: %w", err)
	}
	return asked, nil
}

// readReview reads the AdmissionReview of a request, of the version v1.
func readReview(r *http.Request) (*request, error) {
	if r.Method != http.MethodPost {
		return nil, &httpError{http.StatusMethodNotAllowed, "an AdmissionReview is sent by POST"}
	}
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		return nil, &httpError{http.StatusUnsupportedMediaType, "an AdmissionReview is sent as application/json"}
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxReview+1))
	if err != nil {
		return nil, &httpError{http.StatusBadRequest, "the body could not be read"}
	}
	if len(body) > maxReview {
		return nil, &httpError{http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is larger than %d bytes", maxReview)}
	}
	return parseReview(body)
}

func parseReview(body []byte) (*request, error) {
	var got review
	if err := json.Unmarshal(body, &got); err != nil {
		return nil, &httpError{http.StatusBadRequest, "the body is not an AdmissionReview: " + describe(err)}
	}
	if got.APIVersion != admissionv1.SchemeGroupVersion.String() || got.Kind != "AdmissionReview" {
		return nil, &httpError{http.StatusBadRequest, fmt.Sprintf("the body is %.64q of %.64q; only AdmissionReview of %q is answered",
			got.Kind, got.APIVersion, admissionv1.SchemeGroupVersion)}
	}
	if got.Request == nil || got.Request.UID == "" {
		return nil, &httpError{http.StatusBadRequest, "the AdmissionReview has no request with a uid"}
	}
	return got.Request, nil
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
