// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admission/v1"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/reference"
	"github.com/pratique-dev/pratique/registry/credential"
)

// maxInFlight is how many reviews are answered at once (spec section 6). The
// next one is told to come again: the API server then goes by failurePolicy.
const maxInFlight = 512

// Decider decides about images. [policy.Decider] is one.
type Decider interface {
	Decide(ctx context.Context, q policy.Question) []policy.Decision
	Pin(ctx context.Context, q policy.Question) []policy.Decision
}

// Surroundings tell what holds where a request happens.
type Surroundings interface {
	// Set returns the rules in force, nil if they are not read yet; one request
	// asks once.
	Set() *policy.Set
	// Namespace describes the namespace of a request.
	Namespace(ctx context.Context, name string) policy.Namespace
	// Credentials finds an object's pull secrets, and its ServiceAccount's, in
	// one namespace, and what there is for every object, also for one that has
	// no namespace and names nothing.
	Credentials(names credential.Names) *credential.Source
}

// References reads image references. [reference.Memo] is one.
type References interface {
	Parse(written string) (reference.Reference, error)
}

// Recorder counts what happens. Its labels come from fixed lists.
type Recorder interface {
	// Reviewed is told of each answer: how long it took to read what it is an
	// answer to, and how long all of it took.
	Reviewed(pass string, allowed bool, reading, whole time.Duration)
	Found(finding policy.Finding)
	// Refused is told of each request that got an HTTP error in place of an answer.
	Refused(pass string, status int)
}

// Handler answers AdmissionReviews. All its exported fields must be set.
type Handler struct {
	Catalog      *Catalog
	References   References
	Decider      Decider
	Surroundings Surroundings
	Server       policy.Server
	// SecretNamespaces is where the pull secrets of objects without a
	// namespace are, by what their row says.
	SecretNamespaces map[SecretNamespace]string
	// Bodies bounds what large reviews take of memory.
	Bodies   *Bodies
	Recorder Recorder
	Log      logr.Logger

	make     sync.Once
	intake   intake // of both passes
	refusals refusals
}

// Mutate returns the handler of the mutating pass. It pins, and never denies.
func (h *Handler) Mutate() http.Handler { return h.serve(passMutate, h.mutate) }

// Validate returns the handler of the validating pass. It trusts nothing that
// the mutating pass, or anyone, left in the object.
func (h *Handler) Validate() http.Handler { return h.serve(passValidate, h.validate) }

// answer decides about one request. ctx ends when the answer is due.
type answer func(ctx context.Context, r *request) *response

func (h *Handler) serve(pass string, answer answer) http.Handler {
	h.make.Do(func() { h.intake = intake{make(chan struct{}, maxInFlight), maxReview} })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := h.intake.take(w, r, h.Bodies, func(ctx context.Context, v visit) error {
			given := h.guarded(ctx, v.asked, pass, answer)
			h.write(w, v.asked, given)
			h.record(v, given)
			return nil
		})
		if err != nil {
			h.Recorder.Refused(pass, h.refusals.refuse(h.Log, w, err))
		}
	})
}

// guarded turns a panic into an answer: the process goes on, and the object
// is not let in.
func (h *Handler) guarded(ctx context.Context, asked *request, pass string, answer answer) (given *response) {
	defer func() {
		if p := recover(); p != nil {
			given = h.unexamined(pass, policy.Panicked(p))
		}
	}()
	return answer(ctx, asked)
}

// InFlight is how many reviews are being answered now.
func (h *Handler) InFlight() int { return len(h.intake.places) }

func (h *Handler) write(w http.ResponseWriter, asked *request, given *response) {
	write(h.Log, w, given.build(asked.UID))
}

// write sends an answer.
func write(log logr.Logger, w http.ResponseWriter, response *admissionv1.AdmissionResponse) {
	review := admissionv1.AdmissionReview{Response: response}
	review.SetGroupVersionKind(admissionv1.SchemeGroupVersion.WithKind("AdmissionReview"))
	body, err := json.Marshal(review)
	if err != nil {
		log.Error(err, "cannot write an answer", "requestID", response.UID)
		http.Error(w, "the answer could not be written", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, err = w.Write(body)
	if err == nil {
		// Who waits for the answer need not wait for the log.
		err = http.NewResponseController(w).Flush()
	}
	if err != nil {
		log.V(1).Info("the API server went away", "requestID", response.UID)
	}
}

func (h *Handler) record(v visit, given *response) {
	asked, whole := v.asked, time.Since(v.began)
	h.Recorder.Reviewed(given.pass, given.allowed(), v.reading, whole)
	for _, line := range given.lines {
		h.Recorder.Found(line.finding)
		if trace := line.finding.Verdict.Trace; trace != "" {
			h.Log.Error(errors.New("panic"), "examining an image panicked", "requestID", asked.UID, "path", line.path, "trace", trace)
		}
	}
	about := []any{
		"pass", given.pass, "requestID", asked.UID, "operation", asked.Operation, "kind", asked.Kind.Kind,
		"namespace", asked.Namespace, "name", asked.Name, "images", given.images, "duration", whole.String(),
	}
	if given.pass == passMutate {
		about = append(about, "pinned", given.pinned, "rewritten", given.rewritten, "injected", given.injected, "unresolved", given.unresolved)
	} else {
		about = append(about, "allowed", given.allowed(), "verdict", given.outcome())
	}
	h.Log.Info("reviewed", about...)
}

// subject is what a request asks to examine.
type subject struct {
	row    *Row
	images []Image // new or changed, without those that are skipped
	found  Found
	set    *policy.Set // the rules in force, once they were looked at
}

// errUnknownKind means that nobody can tell where images are.
var errUnknownKind = errors.New("the catalog does not know this kind: the webhook configuration and the server disagree")

// examine finds the images of a request. On UPDATE only those that are new or
// changed count; nothing else exempts any, but that a static Pod's mirror is
// made by its node.
func (h *Handler) examine(r *request) (subject, error) {
	if !r.intercepted() {
		return subject{}, nil
	}
	row, ok := h.Catalog.Lookup(r.Kind.Group, r.Kind.Version, r.Kind.Kind, r.SubResource)
	if !ok {
		return subject{}, errUnknownKind
	}
	if absent(r.Object) {
		return subject{}, errors.New("the review has no object")
	}
	found, err := row.Find(r.Object)
	if err != nil {
		return subject{}, err
	}
	if found.Mirror && r.byNode() {
		return subject{row: row}, nil
	}
	s := subject{row: row, found: found, images: found.Images}
	if r.Operation == admissionv1.Update && !absent(r.OldObject) {
		old, err := row.Find(r.OldObject)
		if err != nil {
			old = Found{} // everything is new, then
		}
		s.images = Changed(found, old)
	}
	s.images = slices.DeleteFunc(slices.Clone(s.images), func(i Image) bool { return i.Skip != SkipNone })
	return s, nil
}

// byNode reports whether a node's kubelet asks (Kubernetes, "Using Node
// Authorization").
func (r *request) byNode() bool { return slices.Contains(r.UserInfo.Groups, "system:nodes") }

// errNoRules comes before the first rules were read: nobody can tell what they
// will ask for.
var errNoRules = errors.New("the ImageConfigs are not read yet: the server has just started")

// question asks about the images of a subject.
func (h *Handler) question(ctx context.Context, r *request, s subject) (policy.Question, error) {
	q := policy.Question{Set: s.set, Pods: len(s.row.podSpecs) > 0, Images: make([]policy.Asked, len(s.images))}
	if q.Set == nil {
		q.Set = h.Surroundings.Set()
	}
	if q.Set == nil {
		return q, errNoRules
	}
	for i, image := range s.images {
		q.Images[i].Reference, q.Images[i].Invalid = h.References.Parse(image.Written)
	}
	if r.Namespace != "" {
		q.Namespace = h.Surroundings.Namespace(ctx, r.Namespace)
	}
	names := h.names(r, s)
	if names.Namespace == "" {
		names = credential.Names{} // it has none of its own; the surroundings may have some for everybody
	}
	if q.Object = r.object(q.Set); q.Object != nil {
		q.Secrets = h.secrets(names.Namespace)
	}
	names.Expected = expected(q, names.PullSecrets)
	q.Credentials = h.Surroundings.Credentials(names)
	return q, nil
}

// defaultAccount is the ServiceAccount of Pods that name none.
const defaultAccount = "default"

// names says where the credentials of an object are looked for: in the
// request's namespace, whatever the object says. What has no namespace has no
// ServiceAccount either; where its row names a namespace for its pull secrets,
// those in it are used by others.
func (h *Handler) names(r *request, s subject) credential.Names {
	names := credential.Names{Namespace: r.Namespace, PullSecrets: s.found.PullSecrets}
	switch {
	case r.Namespace == "":
		names.Namespace = h.SecretNamespaces[s.row.SecretNamespace]
	case len(s.row.podSpecs) > 0:
		names.ServiceAccount = cmp.Or(s.found.ServiceAccountName, defaultAccount)
	}
	return names
}
