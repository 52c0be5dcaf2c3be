// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package arming

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

// inject writes authorities into every webhook that there is.
func (w *world) inject(t *testing.T, bundle []byte) {
	t.Helper()
	for _, o := range w.there(t) {
		for _, hook := range webhooks(o) {
			setBundle(hook, bundle)
		}
		if err := w.client.Update(t.Context(), o, client.FieldOwner("cainjector")); err != nil {
			t.Fatal(err)
		}
	}
}

// injected is a world where everybody is asked, by somebody else's authorities.
func injected(t *testing.T) *world {
	t.Helper()
	w := newWorld(t, func(o *Options) {
		o.Injected, o.Bundle = true, nil
	})
	w.pass(t, asleep, "")
	w.inject(t, w.bundle)
	w.pass(t, armed, "")
	w.answer = errors.New("nobody there")
	return w
}

// awake fails the test unless these are all that are asked, and each by these
// authorities.
func (w *world) awake(t *testing.T, bundle []byte, want ...string) {
	t.Helper()
	var got []string
	for i, o := range w.there(t) {
		for _, hook := range webhooks(o) {
			if isAsleep(hook) {
				continue
			}
			got = append(got, []string{"mutating ", "validating "}[i]+nameOf(hook))
			if !bytes.Equal(caBundle(hook), bundle) {
				t.Errorf("%s is asked by other authorities", nameOf(hook))
			}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
}

func everybody() []string {
	return []string{"mutating pods.example", "mutating others.example", "validating pods.example", "validating others.example"}
}

// TestInjected: the authorities are somebody else's to write. Nobody is asked
// before they are there, and are the right ones; then they stay as they are.
func TestInjected(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *Options) { o.Injected = true })
	w.answer = errors.New("nobody there")
	w.pass(t, asleep, "")
	if w.asked > 0 {
		t.Error("it asks by authorities that are not there")
	}
	w.inject(t, w.bundle)
	w.pass(t, asleep, "nobody there")
	w.awake(t, nil)
	w.answer, w.asked = nil, 0
	w.pass(t, armed, "")
	if w.asked != 1 {
		t.Errorf("asked %d times by the same authorities", w.asked)
	}
	other := authorityPEM(t)
	w.inject(t, other)
	w.answer = errors.New("nobody there")
	w.pass(t, armed, "")
	w.awake(t, other, everybody()...)
}

// TestInjectedOneDeleted: what comes back sleeps until somebody has written its
// authorities and a replica answers by them; the other is asked all the while.
func TestInjectedOneDeleted(t *testing.T) {
	t.Parallel()
	for i, still := range [][]string{everybody()[2:], everybody()[:2]} {
		w := injected(t)
		if err := w.client.Delete(t.Context(), w.there(t)[i]); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			w.pass(t, asleep, "")
			w.awake(t, w.bundle, still...)
		}
		w.inject(t, w.bundle)
		w.pass(t, asleep, "nobody there")
		w.awake(t, w.bundle, still...)
		w.answer = nil
		w.pass(t, armed, "")
		w.awake(t, w.bundle, everybody()...)
	}
}

// TestInjectedAnother: a webhook that is new sleeps; the others are asked, and
// become what they should be.
func TestInjectedAnother(t *testing.T) {
	t.Parallel()
	w := injected(t)
	w.armer.o.Wanted = func(bundle []byte, spare bool) (*admissionregistrationv1.MutatingWebhookConfiguration, *admissionregistrationv1.ValidatingWebhookConfiguration, error) {
		m, v, err := wanted(bundle, spare)
		another := *m.Webhooks[0].DeepCopy()
		another.Name = "another.example"
		m.Webhooks = append(m.Webhooks, another)
		v.Webhooks[0].TimeoutSeconds = new(int32(7))
		return m, v, err
	}
	for range 2 {
		w.pass(t, asleep, "")
		w.awake(t, w.bundle, everybody()...)
	}
	p := w.there(t)
	if len(webhooks(p[0])) != 3 || webhooks(p[1])[0]["timeoutSeconds"] != int64(7) {
		t.Errorf("there is %v", p)
	}
	w.inject(t, w.bundle)
	w.answer = nil
	w.pass(t, armed, "")
	w.awake(t, w.bundle, "mutating pods.example", "mutating others.example", "mutating another.example", everybody()[2], everybody()[3])
}

// TestInjectedOneLess: one that is wanted no more goes, though its authorities are
// applied by somebody else. API servers refuse an apply that leaves no more of it.
func TestInjectedOneLess(t *testing.T) {
	t.Parallel()
	w := injected(t)
	w.armer.o.Client = interceptor.NewClient(w.client.(client.WithWatch), interceptor.Funcs{
		Apply: func(ctx context.Context, c client.WithWatch, o runtime.ApplyConfiguration, opts ...client.ApplyOption) error {
			if kind := o.(interface{ GetKind() string }).GetKind(); kind == kindMutating {
				return apierrors.NewInvalid(schema.GroupKind{Kind: kind}, hooks, nil)
			}
			return c.Apply(ctx, o, opts...)
		},
	})
	w.pass(t, armed, "is invalid") // for another reason
	w.armer.o.Wanted = func(bundle []byte, spare bool) (*admissionregistrationv1.MutatingWebhookConfiguration, *admissionregistrationv1.ValidatingWebhookConfiguration, error) {
		m, v, err := wanted(bundle, spare)
		m.Webhooks = m.Webhooks[:1]
		return m, v, err
	}
	w.pass(t, armed, "")
	w.awake(t, w.bundle, append(everybody()[:1], everybody()[2:]...)...)
}

// TestInjectedElsewhere: what is asked leads elsewhere only after an answer by
// the authorities that it has.
func TestInjectedElsewhere(t *testing.T) {
	t.Parallel()
	w := injected(t)
	w.armer.o.Wanted = func(bundle []byte, spare bool) (*admissionregistrationv1.MutatingWebhookConfiguration, *admissionregistrationv1.ValidatingWebhookConfiguration, error) {
		m, v, err := wanted(bundle, spare)
		v.Webhooks[1].ClientConfig.Service.Name = "elsewhere"
		return m, v, err
	}
	before := w.there(t)
	w.pass(t, armed, "nobody there")
	for i, after := range w.there(t) {
		if diff := cmp.Diff(webhooks(before[i]), webhooks(after)); diff != "" {
			t.Errorf("nobody answers there (-before +after):\n%s", diff)
		}
	}
	var by []byte
	w.armer.o.Answers = func(_ context.Context, bundle []byte) error {
		by = bundle
		return nil
	}
	w.pass(t, armed, "")
	if !bytes.Equal(by, w.bundle) {
		t.Errorf("asked by %q", by)
	}
	w.awake(t, w.bundle, everybody()...)
}

// TestInjectedFromNowOn: who leaves the authorities to somebody else leaves those
// that there are.
func TestInjectedFromNowOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.pass(t, armed, "")
	w.answer, w.armer.o.Injected = errors.New("nobody there"), true
	w.pass(t, armed, "")
	w.awake(t, w.bundle, everybody()...)
	other := authorityPEM(t)
	w.inject(t, other)
	w.pass(t, armed, "")
	w.awake(t, other, everybody()...)
}
