// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package pullsecret

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

const (
	own = "pratique-system"
	// hush is in every Secret of these tests and in every error of the API
	// server's, and must be nowhere else.
	hush = "hush-hush"
)

// world is a cluster, as much of it as a Copier sees.
type world struct {
	t      *testing.T
	client client.WithWatch // with faults, counted
	bare   client.WithWatch // without
	in     []string
	leads  atomic.Bool
	unread atomic.Bool

	mu         sync.Mutex
	wanted     []Copy
	sources    map[string]*corev1.Secret
	sourceErr  error
	namespaces map[string]labels.Set
	namesErr   error
	reports    []map[string]Result
	log        strings.Builder
	writes     []string
	reads      int
	// fault is asked before each request: verb, namespace, name.
	fault func(verb, namespace, name string) error
}

func newWorld(t *testing.T, objects ...client.Object) *world {
	t.Helper()
	w := &world{
		t: t, in: []string{"*"},
		sources: map[string]*corev1.Secret{"pull": source("pull", "one")},
		namespaces: map[string]labels.Set{
			own: {"team": "yes"}, "a": {"team": "yes"}, "b": {"team": "yes"}, "c": {"team": "yes"}, "other": {},
		},
		wanted: []Copy{{ImageConfig: "config", Secret: "pull", Namespaces: team("yes")}},
	}
	w.leads.Store(true)
	w.bare = fake.NewClientBuilder().WithObjects(objects...).Build()
	w.client = interceptor.NewClient(w.bare, w.faults())
	t.Cleanup(w.judge)
	return w
}

// faults asks for each request whether it is to fail, and counts the writes.
func (w *world) faults() interceptor.Funcs {
	return interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			if err := w.asked("get", key.Namespace, key.Name); err != nil {
				return err
			}
			return c.Get(ctx, key, o, opts...)
		},
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
			var o client.ListOptions
			o.ApplyOptions(opts)
			if err := w.asked("list", o.Namespace, ""); err != nil {
				return err
			}
			if _, ok := list.(*metav1.PartialObjectMetadataList); !ok {
				w.t.Errorf("a list of %T: what is in the Secrets is not needed", list)
			}
			return c.List(ctx, list, opts...)
		},
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			if err := w.asked("create", o.GetNamespace(), o.GetName()); err != nil {
				return err
			}
			o.SetUID("made")
			return c.Create(ctx, o, opts...)
		},
		Update: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
			if o.GetResourceVersion() == "" || o.GetUID() == "" {
				w.t.Errorf("an update of %s/%s without a condition", o.GetNamespace(), o.GetName())
			}
			if err := w.asked("update", o.GetNamespace(), o.GetName()); err != nil {
				return err
			}
			if err := fixed(ctx, c, o); err != nil {
				return err
			}
			return c.Update(ctx, o, opts...)
		},
		Delete: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
			var d client.DeleteOptions
			d.ApplyOptions(opts)
			if d.Preconditions == nil || d.Preconditions.UID == nil || *d.Preconditions.UID == "" ||
				d.Preconditions.ResourceVersion == nil || *d.Preconditions.ResourceVersion == "" {
				w.t.Errorf("a removal of %s/%s without conditions", o.GetNamespace(), o.GetName())
			}
			if err := w.asked("delete", o.GetNamespace(), o.GetName()); err != nil {
				return err
			}
			return c.Delete(ctx, o, opts...)
		},
		Patch: func(context.Context, client.WithWatch, client.Object, client.Patch, ...client.PatchOption) error {
			return errors.New("no right to patch is asked for")
		},
		DeleteAllOf: func(context.Context, client.WithWatch, client.Object, ...client.DeleteAllOfOption) error {
			return errors.New("no right to deletecollection is asked for")
		},
	}
}

// fixed refuses what the API server refuses, and the fake one does not.
func fixed(ctx context.Context, c client.Client, o client.Object) error {
	var there corev1.Secret
	if err := c.Get(ctx, client.ObjectKeyFromObject(o), &there); err != nil {
		return err
	}
	if s, ok := o.(*corev1.Secret); ok && (s.Type != there.Type || there.Immutable != nil && *there.Immutable) {
		return apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Secret").GroupKind(), o.GetName(), nil)
	}
	return nil
}

func (w *world) asked(verb, namespace, name string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if verb == "get" || verb == "list" {
		w.reads++
	} else {
		w.writes = append(w.writes, verb+" "+namespace+"/"+name)
	}
	if namespace == own {
		w.t.Errorf("%s %s/%s: our own namespace is no target", verb, namespace, name)
	}
	if w.fault == nil {
		return nil
	}
	return w.fault(verb, namespace, name)
}

func (w *world) set(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

func (w *world) options() Options {
	return Options{
		Client: w.client, Namespace: own, In: w.in, Leads: w.leads.Load, Unread: w.unread.Load,
		Wanted: func() []Copy {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.wanted
		},
		Source: func(_ context.Context, name string) (*corev1.Secret, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.sources[name], w.sourceErr
		},
		Namespaces: func(context.Context) (map[string]labels.Set, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return maps.Clone(w.namespaces), w.namesErr
		},
		Report: func(results map[string]Result) { w.set(func() { w.reports = append(w.reports, results) }) },
	}
}

func (w *world) context() context.Context {
	return logr.NewContext(w.t.Context(), funcr.New(func(prefix, args string) {
		w.set(func() { fmt.Fprintln(&w.log, prefix, args) })
	}, funcr.Options{Verbosity: 9}))
}

// pass makes one pass of a Copier that has just started.
func (w *world) pass() progress {
	w.t.Helper()
	return New(w.options()).pass(w.context())
}

// last is what was reported last of the ImageConfig of that name.
func (w *world) last(name string) Result {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.reports) == 0 {
		w.t.Fatal("nothing was reported")
	}
	return w.reports[len(w.reports)-1][name]
}

// written are the writes that were tried since it was asked last.
func (w *world) written() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer func() { w.writes = nil }()
	return w.writes
}

// passes counts the passes that were reported.
func (w *world) passes() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.reports)
}

// requests counts what the API server was asked.
func (w *world) requests() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.reads + len(w.writes)
}

// there says of each Secret what is in it, and whether it is ours.
func (w *world) there() map[string]string {
	w.t.Helper()
	var list corev1.SecretList
	if err := w.bare.List(w.t.Context(), &list); err != nil {
		w.t.Fatal(err)
	}
	found := map[string]string{}
	for _, s := range list.Items {
		what := "theirs"
		if s.Labels[labelCopy] == valueCopy {
			what = strings.TrimPrefix(string(s.Data[corev1.DockerConfigJsonKey])+string(s.Data[corev1.DockerConfigKey]), hush+" ")
		}
		found[s.Namespace+"/"+s.Name] = what
	}
	return found
}

func (w *world) wantThere(want map[string]string) {
	w.t.Helper()
	if diff := cmp.Diff(want, w.there()); diff != "" {
		w.t.Errorf("the Secrets (-want +got):\n%s", diff)
	}
}

func (w *world) wantResult(reason string, says ...string) {
	w.t.Helper()
	got := w.last("config")
	if got.Reason != reason || got.OK != (reason == reasonCopied) {
		w.t.Errorf("reported %+v, want %s", got, reason)
	}
	for _, say := range says {
		if !strings.Contains(got.Message, say) {
			w.t.Errorf("reported %q, which does not say %q", got.Message, say)
		}
	}
}

// judge sees at the end of each test that nothing was let out.
func (w *world) judge() {
	w.mu.Lock()
	defer w.mu.Unlock()
	said := w.log.String() + fmt.Sprint(w.reports)
	if strings.Contains(said, hush) {
		w.t.Errorf("what is in a Secret was told:\n%s", said)
	}
	for _, results := range w.reports {
		for name, r := range results {
			if r.Reason == "" || r.Message == "" {
				w.t.Errorf("reported %+v of %q: something is missing", r, name)
			}
		}
	}
}

func team(value string) labels.Selector { return labels.SelectorFromSet(labels.Set{"team": value}) }

func source(name, value string) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: own, Name: name, Labels: map[string]string{"own": "label"},
			Annotations: map[string]string{"kubectl.kubernetes.io/last-applied-configuration": hush},
		},
		Type: corev1.SecretTypeDockerConfigJson,
		Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(hush + " " + value), "more": []byte(hush)},
	}
}

// copyIn is a copy as another process of ours left it.
func copyIn(namespace, name, value string) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: name, UID: "left",
			Labels:      map[string]string{labelCopy: valueCopy, labelManagedBy: valueManagedBy},
			Annotations: map[string]string{annotationFrom: own + "/" + name},
		},
		Type: corev1.SecretTypeDockerConfigJson,
		Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(hush + " " + value)},
	}
}

// theirs is a Secret of somebody else.
func theirs(namespace, name string) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: "theirs"},
		Type:       corev1.SecretTypeDockerConfigJson,
		Data:       map[string][]byte{corev1.DockerConfigJsonKey: []byte(hush + " theirs")},
	}
}

func secrets() schema.GroupResource { return schema.GroupResource{Resource: "secrets"} }

func forbidden(name string) error {
	return apierrors.NewForbidden(secrets(), name, errors.New(hush))
}

// silent is an API server that does not answer.
type silent struct {
	client.Client

	now, most atomic.Int64
}

func (s *silent) Get(ctx context.Context, _ client.ObjectKey, _ client.Object, _ ...client.GetOption) error {
	now := s.now.Add(1)
	defer s.now.Add(-1)
	for most := s.most.Load(); now > most && !s.most.CompareAndSwap(most, now); {
		most = s.most.Load()
	}
	<-ctx.Done()
	return ctx.Err()
}

func (*silent) List(ctx context.Context, _ client.ObjectList, _ ...client.ListOption) error {
	<-ctx.Done()
	return ctx.Err()
}
