// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package installed_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/kubernetes/scheme"
)

const (
	// rate is how many admissions a second a stream asks for, however long the
	// answers take.
	rate = 20
	// retryFor is how long a client tries again that got no answer, retryEvery how
	// often.
	retryFor   = 30 * time.Second
	retryEvery = 250 * time.Millisecond
	// slow is the webhook's timeout: what takes longer is counted.
	slow = 10 * time.Second
	// coldEvery is how often an image is asked for that nobody has asked for yet.
	coldEvery = 20
	// shown is how many answers of a kind are kept for messages.
	shown = 3
)

// outcome is what an answer is.
type outcome int

const (
	right outcome = iota
	// inconclusive is a denial because a verdict could not be had.
	inconclusive
	// raw is neither an admission nor a denial by a verdict.
	raw
	// wrong is what must never be.
	wrong
	// lost is raw to the end.
	lost
	// unpinned is a denial because the image came to validation without a digest:
	// mutation, whose failure is ignored, was not asked, or could not ask the
	// registry. It says nothing of the image, and is raw or inconclusive.
	unpinned
)

// question is one admission, and what is right for it.
type question struct {
	image  published
	signed bool
}

// judge says what an answer is, and why it is not right.
type judge func(q question, stored *corev1.Pod, err error) (outcome, error)

// enforced is what is right in Enforce: what is signed is admitted, pinned and
// given the pull secret; what is not is denied by its verdict.
func enforced(q question, stored *corev1.Pod, err error) (outcome, error) {
	switch {
	case err != nil:
		return denied(q, err)
	case !q.signed:
		return wrong, fmt.Errorf("%s is not signed, and admitted as %s", q.image.tag, stored.Spec.Containers[0].Image)
	case stored.Spec.Containers[0].Image != q.image.pinned():
		return wrong, fmt.Errorf("%s is stored as %s", q.image.tag, stored.Spec.Containers[0].Image)
	case !slices.Contains(stored.Spec.ImagePullSecrets, corev1.LocalObjectReference{Name: "acme-pull"}):
		return wrong, fmt.Errorf("%s has the pull secrets %v", q.image.tag, stored.Spec.ImagePullSecrets)
	default:
		return right, nil
	}
}

func denied(q question, err error) (outcome, error) {
	said := err.Error()
	switch {
	case !strings.Contains(said, `admission webhook "pods.pratique.dev" denied the request: `):
		return raw, err
	case strings.Contains(said, "not pinned: the mutating webhook did not run"):
		return unpinned, err
	case strings.Contains(said, ` Inconclusive by ImageConfig "acme"`) && apierrors.IsServiceUnavailable(err):
		return inconclusive, err
	case strings.Contains(said, ` Rejected by ImageConfig "acme"`) && apierrors.IsForbidden(err):
		if q.signed {
			return wrong, err
		}
		return right, nil
	default:
		return raw, err
	}
}

// audited is what is right in Audit: everything is admitted, in the time that two
// webhooks have which are waited for in vain.
func audited(_ question, _ *corev1.Pod, err error) (outcome, error) {
	if err != nil {
		return wrong, err
	}
	return right, nil
}

// row is what became of a stream.
type row struct {
	fault string
	// atOnce and recovered were right, these after raw errors; excused are
	// Inconclusive while the registry was away.
	admissions, atOnce, recovered, excused, late int
	// cold is how many images nobody had asked for before.
	cold    int
	longest time.Duration
	counts  [lost + 1]int
	told    [lost + 1][]string
}

func (r *row) count(o outcome, why error) {
	r.counts[o]++
	if why != nil && len(r.told[o]) < shown {
		r.told[o] = append(r.told[o], time.Now().Format("15:04:05.000 ")+why.Error())
	}
}

// broken says what a row must not have; where nothing breaks off no raw errors
// either.
func (r *row) broken(rawAllowed bool) error {
	var errs []error
	for o, name := range map[outcome]string{wrong: "WRONG", lost: "LOST", raw: "raw errors", inconclusive: "Inconclusive denials"} {
		n := r.counts[o]
		switch {
		case o == raw && rawAllowed:
			continue
		case o == inconclusive:
			n -= r.excused
		}
		if n > 0 {
			errs = append(errs, fmt.Errorf("%d %s, such as\n\t%s", n, name, strings.Join(r.told[o], "\n\t")))
		}
	}
	if r.admissions == 0 {
		errs = append(errs, errors.New("nobody was asked"))
	}
	return errors.Join(errs...)
}

// table prints rows under a header.
func table(rows []*row) {
	const format = "%-37s %10v  %13v  %12v  %10v  %9v  %4v  %5v  %9v  %7v\n"
	var b strings.Builder
	fmt.Fprintf(&b, "\n"+format, "fault", "admissions", "right at once", "Inconclusive", "raw errors", "recovered", "lost", "wrong", "over 10 s", "longest")
	for _, r := range rows {
		fmt.Fprintf(&b, format, r.fault, r.admissions, r.atOnce, r.counts[inconclusive], r.counts[raw], r.recovered,
			r.counts[lost], r.counts[wrong], r.late, fmt.Sprintf("%.2f s", r.longest.Seconds()))
	}
	fmt.Fprintln(os.Stdout, b.String())
}

// stream asks for Pods at a constant rate, as a dry run.
type stream struct {
	judge  judge
	stop   context.CancelFunc
	asking sync.WaitGroup
	asked  atomic.Int64
	// away: the registry cannot be asked, so that Inconclusive is right.
	away atomic.Bool

	mu  sync.Mutex
	row row
}

// newStream starts one, which ends with end.
func newStream(t *testing.T, fault string, judge judge) *stream {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	s := &stream{judge: judge, stop: stop, row: row{fault: fault}}
	// As many as there can be, for none takes longer than retryFor.
	slots := make(chan struct{}, rate*int(retryFor/time.Second)+rate)
	s.asking.Go(func() {
		for began := time.Now(); ; {
			next := began.Add(time.Duration(s.asked.Load()) * time.Second / rate)
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Until(next)):
			}
			slots <- struct{}{}
			q := s.question(s.asked.Add(1))
			s.asking.Go(func() {
				s.admit(context.WithoutCancel(ctx), q)
				<-slots
			})
		}
	})
	t.Cleanup(stop)
	return s
}

// more waits until so many seconds' worth of admissions have been asked for.
func (s *stream) more(t *testing.T, seconds int64) {
	t.Helper()
	until := s.asked.Load() + rate*seconds
	eventually(t, "the stream goes on", func(context.Context) error {
		if n := s.asked.Load(); n < until {
			return fmt.Errorf("%d of %d", n, until)
		}
		return nil
	})
}

// end waits for the answers that are due.
func (s *stream) end() *row {
	s.stop()
	s.asking.Wait()
	return &s.row
}

// question is the n-th: half are signed, and some of both are cold.
func (s *stream) question(n int64) question {
	a := shared.acme
	if n%coldEvery == 0 {
		select {
		case q := <-a.cold:
			s.mu.Lock()
			defer s.mu.Unlock()
			s.row.cold++
			return q
		default: // there are no more
		}
	}
	if n%2 == 0 {
		return question{a.unsigned, false}
	}
	return question{a.signed, true}
}

// admit asks until there is an answer that is not raw, or for retryFor.
func (s *stream) admit(ctx context.Context, q question) {
	ctx, cancel := context.WithTimeout(ctx, retryFor)
	defer cancel()
	a := admission{began: time.Now(), away: s.away.Load()}
	for {
		stored, err := ask(ctx, q.image.tag)
		what, why := s.judge(q, stored, err)
		switch {
		case what != unpinned:
		case a.away || s.away.Load():
			// Replicas remember for themselves. The one that was to pin knew no digest
			// for the tag any more, and the one that validates still does.
			what = inconclusive
		default:
			what = raw
		}
		if what != raw {
			s.note(a, what, why)
			return
		}
		if a.first == nil {
			a.first = why
		}
		select {
		case <-ctx.Done():
			s.note(a, lost, why)
			return
		case <-time.After(retryEvery):
		}
	}
}

// admission is one that is being asked for.
type admission struct {
	began time.Time
	away  bool  // the registry was, when it began
	first error // the first raw one
}

// note counts an admission that ended.
func (s *stream) note(a admission, what outcome, why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &s.row
	took := time.Since(a.began)
	r.admissions++
	r.longest = max(r.longest, took)
	if took > slow {
		r.late++
	}
	if a.first != nil {
		r.count(raw, a.first)
	}
	switch {
	case what == right && a.first == nil:
		r.atOnce++
	case what == right:
		r.recovered++
	case what == inconclusive && (a.away || s.away.Load()):
		r.excused++
		r.counts[inconclusive]++
	default:
		r.count(what, why)
	}
}

// ask asks the API server once for a Pod in the team's namespace, as a dry run.
// The client would by itself try again if the answer says when.
func ask(ctx context.Context, image string) (*corev1.Pod, error) {
	stored := &corev1.Pod{}
	err := shared.client.CoreV1().RESTClient().Post().Namespace(team).Resource("pods").MaxRetries(0).
		VersionedParams(&dryRun, scheme.ParameterCodec).
		Body(podOf("asked", image)).Do(ctx).Into(stored)
	return stored, err
}
