// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// lookFor is how often it is asked whether kinds of other projects are
	// served; missing is when it is asked again whether one is gone. Both, and the
	// compilation, are within the 5 s in which a change is in force.
	lookFor = 2 * time.Second
	missing = time.Second
	// answerWithin bounds one such question.
	answerWithin = 5 * time.Second
)

// otherGroup is kinds of another project, in one API group. They are read
// wherever the API server serves them, and needed nowhere.
type otherGroup struct {
	group string
	// versions are those that can be read, the preferred one first.
	versions []string
	// kinds maps each kind to its resource.
	kinds map[string]string
	// namespace is where the Secrets are that they name; configMaps says that they
	// name ConfigMaps there, too.
	namespace  string
	configMaps bool
}

// apiAccess is how the API server is asked past the manager's cache: what that
// watches it watches until the process ends.
type apiAccess struct {
	config    *rest.Config
	http      *http.Client
	discovery *discovery.DiscoveryClient
	// failed is told of each watch that fails.
	failed toolscache.WatchErrorHandlerWithContext
}

func newAPIAccess(config *rest.Config, client *http.Client, failed toolscache.WatchErrorHandlerWithContext) (*apiAccess, error) {
	made, err := discovery.NewDiscoveryClientForConfigAndClient(config, client)
	if err != nil {
		return nil, fmt.Errorf("making the client of the API server's discovery: %w", err)
	}
	if failed == nil {
		failed = toolscache.DefaultWatchErrorHandler
	}
	return &apiAccess{config: config, http: client, discovery: made, failed: failed}, nil
}

// follower reads the objects of one group for as long as they are served, and
// with them the Secrets that they name.
type follower struct {
	otherGroup

	api     *apiAccess
	changed func() // something that compiles to rules did
	read    chan struct{}

	running sync.WaitGroup
	mu      sync.Mutex
	asked   bool                 // it was answered what is served
	doubt   map[string]bool      // kinds that the last answer said are gone
	err     error                // why there was no answer the last time
	kinds   map[string]*watching // those that are served
	secrets *watching            // nil if no kind is
	texts   *watching            // ConfigMaps; nil too if they are not read
}

func newFollower(group otherGroup, api *apiAccess, changed func()) *follower {
	return &follower{
		otherGroup: group, api: api, changed: changed, read: make(chan struct{}), kinds: map[string]*watching{},
	}
}

// run looks again and again, until ctx ends.
func (f *follower) run(ctx context.Context) {
	defer f.running.Wait()
	defer f.stop()
	log := logr.FromContextOrDiscard(ctx)
	last := ""
	for {
		text := ""
		if err := f.look(ctx); err != nil {
			text = err.Error()
		}
		if text != "" && text != last {
			log.Error(nil, "cannot tell whether kinds are served: what is known stays in force", "group", f.group, "cause", text)
		}
		last = text
		if !pause(ctx, f.wait()) {
			return
		}
	}
}

func (f *follower) wait() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.doubt) > 0 {
		return missing
	}
	return lookFor
}

func (f *follower) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, w := range f.kinds {
		w.stop()
	}
	f.secrets.stop()
	f.texts.stop()
}

// look asks which kinds are served, and begins and ends to read them. Without an
// answer everything stays as it is.
func (f *follower) look(ctx context.Context) error {
	served, err := f.served(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
	if err != nil {
		return err
	}
	err = f.follow(ctx, served)
	f.asked = f.asked || err == nil
	f.tellRead()
	return err
}

// served maps the kinds that are served to the version in which they are read.
func (f *follower) served(ctx context.Context) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	served := map[string]string{}
	for _, version := range f.versions {
		list, err := f.api.discovery.ServerResourcesForGroupVersionWithContext(ctx, f.group+"/"+version)
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("asking what is served in %s/%s: %w", f.group, version, err)
		}
		for kind, resource := range f.otherGroup.kinds {
			is := func(r metav1.APIResource) bool { return r.Name == resource && r.Kind == kind }
			if _, known := served[kind]; !known && slices.ContainsFunc(list.APIResources, is) {
				served[kind] = version
			}
		}
	}
	return served, nil
}

// drop ends the reading of what is not served any more.
func (f *follower) drop(served map[string]string) {
	doubt := map[string]bool{}
	for kind, w := range f.kinds {
		if _, ok := served[kind]; ok {
			continue
		}
		// Rules would go with it: an API server that is just starting, or behind
		// the others, must say so twice.
		if !f.doubt[kind] {
			doubt[kind] = true
			continue
		}
		w.stop()
		delete(f.kinds, kind)
		f.changed()
	}
	f.doubt = doubt
}

// follow begins to read what is served, and drops what is not any more.
func (f *follower) follow(ctx context.Context, served map[string]string) error {
	f.drop(served)
	for kind, version := range served {
		before := f.kinds[kind]
		gvk := schema.GroupVersionKind{Group: f.group, Version: version, Kind: kind}
		if before != nil && before.gvk == gvk {
			continue
		}
		w, err := f.watch(ctx, gvk, f.otherGroup.kinds[kind])
		if err != nil {
			return err
		}
		w.before = before // stays in force until the other is read
		f.kinds[kind] = w
	}
	switch {
	case len(f.kinds) == 0:
		f.secrets.stop()
		f.texts.stop()
		f.secrets, f.texts = nil, nil
		return nil
	case f.secrets == nil:
		var err error
		if f.secrets, err = f.watch(ctx, corev1.SchemeGroupVersion.WithKind("Secret"), "secrets"); err != nil {
			return err
		}
	}
	if f.configMaps && f.texts == nil {
		var err error
		f.texts, err = f.watch(ctx, corev1.SchemeGroupVersion.WithKind(kindConfigMap), "configmaps")
		return err
	}
	return nil
}

const kindConfigMap = "ConfigMap"

// unread says what is not read yet, nil for nothing. That Secrets cannot be read
// is told by what needs one. The lock is held.
func (f *follower) unread() error {
	if !f.asked {
		if f.err != nil {
			return f.err
		}
		return fmt.Errorf("it is not known yet what is served in %s", f.group)
	}
	for kind, w := range f.kinds {
		if w.latest() == nil {
			return fmt.Errorf("%s.%s is served and not read: %w", kind, f.group, w.why())
		}
	}
	if s := f.secrets; s != nil && s.latest() == nil && s.err == nil {
		return fmt.Errorf("the Secrets in %s are not read yet", f.namespace)
	}
	if s := f.texts; s != nil && s.latest() == nil && s.err == nil {
		return fmt.Errorf("the ConfigMaps in %s are not read yet", f.namespace)
	}
	return nil
}

// tellRead tells whoever waits that all was read once. The lock is held.
func (f *follower) tellRead() {
	select {
	case <-f.read:
	default:
		if f.unread() == nil {
			close(f.read)
		}
	}
}

// problem says what is not read yet, for those who do not hold the lock.
func (f *follower) problem() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.unread()
}

// list lists the objects of a kind as they were last read; none of one that is
// not served.
func (f *follower) list(ctx context.Context, kind string) ([]unstructured.Unstructured, error) {
	f.mu.Lock()
	w := f.kinds[kind].latest()
	f.mu.Unlock()
	if w == nil {
		return nil, nil
	}
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(w.gvk.GroupVersion().WithKind(kind + "List"))
	if err := w.cache.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing %s.%s: %w", kind, f.group, err)
	}
	return list.Items, nil
}

// secret reads a Secret of the namespace; nil if there is none.
func (f *follower) secret(ctx context.Context, name string) (*corev1.Secret, error) {
	f.mu.Lock()
	w := f.secrets.latest()
	why := f.secrets.why()
	f.mu.Unlock()
	if w == nil {
		return nil, why
	}
	secret := &corev1.Secret{}
	err := w.cache.Get(ctx, client.ObjectKey{Namespace: f.namespace, Name: name}, secret)
	if apierrors.IsNotFound(err) {
		return nil, nil //nolint:nilnil // Objects documents nil as absent
	}
	if err != nil {
		return nil, fmt.Errorf("reading the cache: %w", err)
	}
	return secret, nil
}

// configMap reads a ConfigMap of the namespace; nil if there is none.
func (f *follower) configMap(ctx context.Context, name string) (*corev1.ConfigMap, error) {
	f.mu.Lock()
	w := f.texts.latest()
	why := f.texts.why()
	f.mu.Unlock()
	if w == nil {
		return nil, why
	}
	object := &corev1.ConfigMap{}
	err := w.cache.Get(ctx, client.ObjectKey{Namespace: f.namespace, Name: name}, object)
	if apierrors.IsNotFound(err) {
		return nil, nil //nolint:nilnil // Objects documents nil as absent
	}
	if err != nil {
		return nil, fmt.Errorf("reading the cache: %w", err)
	}
	return object, nil
}

// serves reports whether a kind is served.
func (f *follower) serves(kind string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.kinds[kind] != nil
}

var errUnread = errors.New("not read yet")
