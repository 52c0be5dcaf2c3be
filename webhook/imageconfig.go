// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pratique-dev/pratique/policy"
)

// ImageConfigs as the API server serves them (deploy/crds). This room does not
// know their type, only who checks them.
const (
	imageConfigGroup    = "pratique.dev"
	imageConfigVersion  = "v1alpha1"
	imageConfigResource = "imageconfigs"
)

// ImageConfigs are decoded as a whole, which takes up to 65 times as much memory as
// they have bytes (a list of empty objects); so both bounds are small. Admins write
// them by hand or by a tool.
const (
	// maxConfigsInFlight is how many are checked at once.
	maxConfigsInFlight = 4
	// maxConfigReview bounds a review of one, in bytes. An object that etcd stores
	// has at most 1.5 MiB, and an ImageConfig a few KiB; what is larger is not
	// checked, but compiled like any other.
	maxConfigReview = 1 << 20
)

// ImageConfigHandler answers AdmissionReviews of ImageConfigs: what is wrong with
// one is an error for who writes it, and what may not be meant so is a warning.
//
// It is for people. Nothing hangs on it: an ImageConfig that comes in without it
// is compiled like any other, and is not Ready then. So when it fails itself it
// answers with an error, and leaves it to the failurePolicy, which is Ignore. All
// its exported fields must be set.
type ImageConfigHandler struct {
	// Check says what is wrong with an ImageConfig in raw JSON, each problem with
	// the path of its field, and what may not be meant so.
	Check func(raw []byte) (problems, warnings []string)
	// Bodies is that of the [Handler].
	Bodies   *Bodies
	Recorder Recorder
	Log      logr.Logger

	once     sync.Once
	intake   intake
	refusals refusals
}

// ServeHTTP implements [http.Handler].
func (h *ImageConfigHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.once.Do(func() { h.intake = intake{make(chan struct{}, maxConfigsInFlight), maxConfigReview} })
	err := h.intake.take(w, r, h.Bodies, func(_ context.Context, v visit) error {
		response, err := h.guarded(v.asked)
		if err != nil {
			return err
		}
		write(h.Log, w, response)
		h.Recorder.Reviewed(passImageConfig, response.Allowed, v.reading, time.Since(v.began))
		h.Log.Info("reviewed an ImageConfig", "requestID", v.asked.UID, "operation", v.asked.Operation, "name", v.asked.Name,
			"allowed", response.Allowed, "warnings", len(response.Warnings))
		return nil
	})
	if err != nil {
		h.Recorder.Refused(passImageConfig, h.refusals.refuse(h.Log, w, err))
	}
}

// guarded turns a panic into an error: it says nothing about the ImageConfig.
func (h *ImageConfigHandler) guarded(asked *request) (_ *admissionv1.AdmissionResponse, err error) {
	defer func() {
		if p := recover(); p != nil {
			h.Log.Error(errors.New("panic"), "checking an ImageConfig panicked", "requestID", asked.UID, "trace", policy.Panicked(p).Trace)
			err = &httpError{http.StatusInternalServerError, "checking the ImageConfig failed unexpectedly"}
		}
	}()
	return h.answer(asked)
}

func (h *ImageConfigHandler) answer(asked *request) (*admissionv1.AdmissionResponse, error) {
	response := &admissionv1.AdmissionResponse{UID: types.UID(asked.UID), Allowed: true}
	if !asked.intercepted() {
		return response, nil
	}
	if absent(asked.Object) {
		return nil, &httpError{http.StatusBadRequest, "the review has no object"}
	}
	problems, warnings := h.Check(asked.Object)
	if asked.stays() {
		// What is wrong was so before, and must not keep labels and finalizers from
		// being changed.
		problems, warnings = nil, append(problems, warnings...)
	}
	response.Warnings = bounded(allPrintable(warnings))
	if len(problems) > 0 {
		response.Allowed, response.Result = false, invalid(allPrintable(problems))
	}
	return response, nil
}

// stays reports whether an UPDATE leaves the spec as it is, or the object is
// being deleted.
func (r *request) stays() bool {
	if r.Operation != admissionv1.Update {
		return false
	}
	var before, after map[string]any
	if json.Unmarshal(r.OldObject, &before) != nil || json.Unmarshal(r.Object, &after) != nil {
		return false
	}
	return valueAt(before, "metadata", "deletionTimestamp") != nil || reflect.DeepEqual(before["spec"], after["spec"])
}

// invalid says all that is wrong at once, as the API server does for what its
// schema refuses.
func invalid(problems []string) *metav1.Status {
	message := problems[0]
	if len(problems) > 1 {
		message = "\n" + strings.Join(problems, "\n")
	}
	return &metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusUnprocessableEntity, Reason: metav1.StatusReasonInvalid,
		Message: cut(message, maxDenial),
	}
}

func allPrintable(texts []string) []string {
	texts = slices.Clone(texts)
	for i, text := range texts {
		texts[i] = printable(text)
	}
	return texts
}
