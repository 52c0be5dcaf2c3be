// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/maypok86/otter/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/pratique-dev/pratique/api/crossplane/v1beta1"
	"github.com/pratique-dev/pratique/api/v1alpha1"
	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/registry/credential"
)

const (
	// collect is how long changes are gathered before the rules are compiled.
	collect = 100 * time.Millisecond
	// retryAfter is when a compilation that failed, or that could not read a
	// Secret, is tried again.
	retryAfter = time.Second
	// keptFor is how long the credentials of a Pod's pull secret, and the names
	// that its ServiceAccount gives, are kept. Changes are in force within 5 s
	// (spec section 3), and reading them again takes its time too.
	keptFor = 3 * time.Second
	// maxKept bounds of how many of each they are.
	maxKept = 1000
)

// Cluster reads rules through the API server. ImageConfigs are read as they
// are stored: a typed client would drop the names that it does not know, and
// with them the mistakes.
type Cluster struct {
	live

	compiler  Compiler
	namespace string // Pratique's own
	cache     cache.Cache
	direct    client.Reader // past the cache, for what may not be watched
	secrets   *otter.Cache[objectKey, pullSecret]
	accounts  *otter.Cache[objectKey, account]
	foreign   foreign
	refresh   *time.Timer // when foreign Secrets are read again; Start's own
	changed   chan struct{}
	told      chan struct{}
	compiled  atomic.Pointer[[]Compiled]
	statuses  *statuses
	// crossplane reads Crossplane's ImageConfigs.
	crossplane *follower
	// policyController reads policy-controller's policies and trust roots.
	policyController *follower
}

// Pratique's own Secrets and ConfigMaps are watched: pull secrets, keys,
// certificates, trust roots and policies that ImageConfigs name.
//
// +kubebuilder:rbac:groups="",resources=secrets;configmaps,verbs=list;watch,namespace=pratique-system

// CacheOptions narrows what a manager's cache watches to what Cluster needs:
// Secrets and ConfigMaps of Pratique's own namespace only.
func CacheOptions(namespace string) cache.Options {
	own := cache.ByObject{Namespaces: map[string]cache.Config{namespace: {}}}
	return cache.Options{
		ByObject:         map[client.Object]cache.ByObject{&corev1.Secret{}: own, &corev1.ConfigMap{}: own},
		DefaultTransform: cache.TransformStripManagedFields(),
	}
}

// +kubebuilder:rbac:groups=pratique.dev,resources=imageconfigs,verbs=list;watch

func imageConfig() *unstructured.Unstructured {
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(v1alpha1.GroupVersion().WithKind(v1alpha1.KindImageConfig))
	return object
}

// Namespaces are watched for their labels, and asked for one by one (get) when
// the watch has not told of them yet.
//
// +kubebuilder:rbac:groups="",resources=namespaces,verbs=get;list;watch

func namespaceMetadata() *metav1.PartialObjectMetadata {
	object := &metav1.PartialObjectMetadata{}
	object.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Namespace"))
	return object
}

// ClusterOptions are what a Cluster works with.
type ClusterOptions struct {
	Compiler  Compiler
	Namespace string // Pratique's own
	// Leads reports whether this replica is the one that writes statuses now.
	Leads func() bool
	// WatchFailed is told of each watch that fails of what is not in the manager's
	// cache; nil for nobody.
	WatchFailed toolscache.WatchErrorHandlerWithContext
}

// NewCluster adds a Cluster to a manager, which starts it.
func NewCluster(ctx context.Context, m manager.Manager, o ClusterOptions) (*Cluster, error) {
	secrets, err := newKept[pullSecret]()
	if err != nil {
		return nil, fmt.Errorf("making the cache of pull secrets: %w", err)
	}
	accounts, err := newKept[account]()
	if err != nil {
		return nil, fmt.Errorf("making the cache of ServiceAccounts: %w", err)
	}
	o.Compiler.cluster, o.Compiler.namespace, o.Compiler.Check = true, o.Namespace, remembered(o.Compiler.Check)
	c := &Cluster{
		compiler: o.Compiler, namespace: o.Namespace,
		cache: m.GetCache(), direct: m.GetAPIReader(), secrets: secrets, accounts: accounts,
		changed:  make(chan struct{}, 1),
		told:     make(chan struct{}, 1),
		statuses: &statuses{client: m.GetClient(), leads: o.Leads},
	}
	api, err := newAPIAccess(m.GetConfig(), m.GetHTTPClient(), o.WatchFailed)
	if err != nil {
		return nil, err
	}
	c.crossplane = newFollower(crossplaneGroup(o.Compiler.CrossplaneNamespace), api, c.again)
	if namespace := o.Compiler.PolicyController.Namespace; namespace != "" {
		c.compiler.PolicyController.archives = newArchives()
		c.policyController = newFollower(policyControllerKinds(namespace), api, c.again)
	}
	for _, watched := range []struct {
		what   string
		object client.Object
		differ func(before, after metav1.Object) bool
	}{
		{"ImageConfigs", imageConfig(), respecified}, {"Secrets", &corev1.Secret{}, rewritten},
		{"ConfigMaps", &corev1.ConfigMap{}, rewritten},
	} {
		informer, err := c.cache.GetInformer(ctx, watched.object, cache.BlockUntilSynced(false))
		if meta.IsNoMatchError(err) {
			return nil, fmt.Errorf("watching %s: %w; hint: kubectl apply -f deploy/crds", watched.what, err)
		}
		if err != nil {
			return nil, fmt.Errorf("watching %s: %w", watched.what, err)
		}
		if _, err := informer.AddEventHandler(handler(watched.differ, c.again)); err != nil {
			return nil, fmt.Errorf("watching %s: %w", watched.what, err)
		}
	}
	namespaces, err := c.cache.GetInformer(ctx, namespaceMetadata(), cache.BlockUntilSynced(false))
	if err != nil {
		return nil, fmt.Errorf("watching namespaces: %w", err)
	}
	if _, err := namespaces.AddEventHandler(handler(rewritten, c.tell)); err != nil {
		return nil, fmt.Errorf("watching namespaces: %w", err)
	}
	return c, m.Add(c)
}

// newKept makes a cache of what is not watched.
func newKept[V any]() (*otter.Cache[objectKey, V], error) {
	return otter.New(&otter.Options[objectKey, V]{
		MaximumSize:      maxKept,
		ExpiryCalculator: otter.ExpiryWriting[objectKey, V](keptFor),
	})
}

// respecified reports whether an ImageConfig asks for something else now. Its
// status, which Pratique writes itself, is not in the generation. The UID tells
// it from another of its name that took its place unseen.
func respecified(before, after metav1.Object) bool {
	return before.GetGeneration() != after.GetGeneration() || before.GetUID() != after.GetUID()
}

// rewritten reports whether an object was written. The cache repeats objects
// from time to time that were not.
func rewritten(before, after metav1.Object) bool {
	return before.GetResourceVersion() != after.GetResourceVersion()
}

// handler acts when an object comes, goes, or differs from what it was.
func handler(differ func(before, after metav1.Object) bool, act func()) toolscache.ResourceEventHandler {
	return toolscache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { act() },
		UpdateFunc: func(before, after any) {
			one, known := before.(metav1.Object)
			other, knownToo := after.(metav1.Object)
			if !known || !knownToo || differ(one, other) {
				act()
			}
		},
		DeleteFunc: func(any) { act() },
	}
}

// Again has the rules compiled again: something that they rest on and that the API
// server does not tell of changed.
func (c *Cluster) Again() { c.again() }

// again asks for a new compilation.
func (c *Cluster) again() { signal(c.changed) }

// Pending names the rules that wait for what is being fetched.
func (c *Cluster) Pending() []string { return pending(c.Compiled()) }

// Compiled lists what was compiled last, but for the rules of a policy.json; nil
// before the first time.
func (c *Cluster) Compiled() []Compiled {
	if compiled := c.compiled.Load(); compiled != nil {
		return *compiled
	}
	return nil
}

// tell tells whoever keeps copies of pull secrets to look again.
func (c *Cluster) tell() { signal(c.told) }

func signal(to chan<- struct{}) {
	select {
	case to <- struct{}{}:
	default: // one is on its way already
	}
}

// NeedLeaderElection implements [manager.LeaderElectionRunnable]: every replica
// keeps its own rules.
func (c *Cluster) NeedLeaderElection() bool { return false }

// Start implements [manager.Runnable]: it compiles once and on every change.
func (c *Cluster) Start(ctx context.Context) error {
	log := logr.FromContextOrDiscard(ctx)
	if !c.cache.WaitForCacheSync(ctx) {
		return errors.New("reading ImageConfigs: stopped before they were read")
	}
	var writing sync.WaitGroup
	defer writing.Wait()
	writing.Go(func() { c.statuses.run(ctx) })
	for _, f := range c.followers() {
		writing.Go(func() { f.run(ctx) })
		select {
		case <-f.read:
		case <-ctx.Done():
			return nil
		}
	}
	for {
		if err := c.compile(ctx); err != nil {
			log.Error(err, "cannot compile the policies: the last good ones stay in force")
			c.unread.set(retryAfter, c.again)
		} else {
			logCompiled(log, *c.compiled.Load())
		}
		select {
		case <-ctx.Done():
			return nil
		case <-c.changed:
		}
		if !pause(ctx, collect) {
			return nil
		}
		select {
		case <-c.changed: // came in the meantime, and is about to be read
		default:
		}
	}
}

// followers are those of the other projects' kinds.
func (c *Cluster) followers() []*follower {
	return slices.DeleteFunc([]*follower{c.crossplane, c.policyController}, func(f *follower) bool { return f == nil })
}

// pause waits, and reports whether that came to its end before ctx.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

func (c *Cluster) compile(ctx context.Context) error {
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(v1alpha1.GroupVersion().WithKind(v1alpha1.KindImageConfig + "List"))
	if err := c.cache.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("listing ImageConfigs: %w", err)
	}
	compiled := make([]Compiled, 0, len(list.Items))
	objects, done := c.look(ctx)
	defer done()
	for i := range list.Items {
		raw, err := list.Items[i].MarshalJSON()
		if err != nil {
			return fmt.Errorf("reading ImageConfig %q: %w", list.Items[i].GetName(), err)
		}
		one, err := c.compiler.Compile(raw, objects)
		if err != nil {
			return fmt.Errorf("reading ImageConfig %q: %w", list.Items[i].GetName(), err)
		}
		compiled = append(compiled, one)
	}
	own := len(compiled)
	compiled, err := c.compileCrossplane(ctx, compiled)
	if err == nil {
		compiled, err = c.compilePolicies(ctx, compiled)
	}
	if err != nil {
		return err
	}
	c.compiler.finish(compiled)
	c.compiled.Store(&compiled)
	c.set.Store(c.compiler.newSet(compiled))
	c.statuses.publish(compiled[:own]) // the others have no status
	c.tell()
	if retry(compiled) {
		c.undone.set(compileAgain, c.again)
	}
	return nil
}

// look finds what ImageConfigs name, for one compilation. After it done has to be
// called, which sees to it that what could not be read, or is not watched, is
// read again.
func (c *Cluster) look(ctx context.Context) (objects Objects, done func()) {
	unread := false
	outside := c.foreign.look(c.foreignSecret)
	bounded, cancel := context.WithTimeout(ctx, foreignTime)
	objects = Objects{
		Secret: func(namespace, name string) (secret *corev1.Secret, err error) {
			if namespace == c.namespace {
				secret, err = c.ownSecret(ctx, name)
			} else {
				secret, err = outside.secret(bounded, objectKey{namespace, name})
			}
			unread = unread || err != nil
			return secret, err
		},
		ConfigMap: func(namespace, name string) (*corev1.ConfigMap, error) {
			object, err := c.watchedConfigMap(ctx, objectKey{namespace, name})
			unread = unread || err != nil
			return object, err
		},
	}
	return objects, func() {
		cancel()
		if unread {
			c.unread.set(retryAfter, c.again)
		}
		c.readAgain(outside.done())
	}
}

// readAgain has the rules compiled again in time for Secrets that are not watched.
func (c *Cluster) readAgain(needed bool) {
	switch {
	case !needed:
	case c.refresh == nil:
		c.refresh = time.AfterFunc(readAgain, c.again)
	default:
		c.refresh.Reset(readAgain)
	}
}

// watchedConfigMap reads a ConfigMap from the cache; nil if there is none.
func (c *Cluster) watchedConfigMap(ctx context.Context, key objectKey) (*corev1.ConfigMap, error) {
	object := &corev1.ConfigMap{}
	err := c.cache.Get(ctx, client.ObjectKey{Namespace: key.namespace, Name: key.name}, object, client.UnsafeDisableDeepCopy)
	if apierrors.IsNotFound(err) {
		return nil, nil //nolint:nilnil // Objects documents nil as absent
	}
	if err != nil {
		return nil, fmt.Errorf("reading the cache: %w", err)
	}
	return object, nil
}

// foreignSecret asks for a Secret in any namespace; nil if there is none.
func (c *Cluster) foreignSecret(ctx context.Context, key objectKey) (*corev1.Secret, error) {
	secret := &corev1.Secret{}
	found, err := c.ask(ctx, key, secret)
	if err != nil || !found {
		return nil, err
	}
	return secret, nil
}

// compileCrossplane adds what Crossplane's ImageConfigs are compiled to. Their
// Secrets need not be tried again: the follower tells when it has read them.
func (c *Cluster) compileCrossplane(ctx context.Context, compiled []Compiled) ([]Compiled, error) {
	if c.crossplane == nil {
		return compiled, nil
	}
	list, err := c.crossplane.list(ctx, v1beta1.KindImageConfig)
	if err != nil {
		return nil, err
	}
	objects := Objects{Secret: func(_, name string) (*corev1.Secret, error) { return c.crossplane.secret(ctx, name) }}
	for i := range list {
		raw, err := list[i].MarshalJSON()
		if err != nil {
			return nil, fmt.Errorf("reading %s %q: %w", KindCrossplane, list[i].GetName(), err)
		}
		one, err := c.compiler.CompileCrossplane(raw, objects)
		if err != nil {
			return nil, fmt.Errorf("reading %s %q: %w", KindCrossplane, list[i].GetName(), err)
		}
		compiled = append(compiled, one)
	}
	return compiled, nil
}

func (c *Cluster) ownSecret(ctx context.Context, name string) (*corev1.Secret, error) {
	secret := &corev1.Secret{}
	err := c.cache.Get(ctx, client.ObjectKey{Namespace: c.namespace, Name: name}, secret)
	if apierrors.IsNotFound(err) {
		return nil, nil //nolint:nilnil // Objects documents nil as absent
	}
	if err != nil {
		return nil, fmt.Errorf("reading the cache: %w", err)
	}
	return secret, nil
}

// Ready reports an error until the rules were read.
func (c *Cluster) Ready() error {
	if c.Set() != nil {
		return nil
	}
	err := errors.New("the ImageConfigs are not read yet")
	for _, f := range c.followers() {
		if problem := f.problem(); problem != nil {
			err = fmt.Errorf("%w: %w", err, problem)
		}
	}
	return err
}

// Namespace describes a namespace by its labels. One that was made a moment ago
// is asked for directly.
func (c *Cluster) Namespace(ctx context.Context, name string) policy.Namespace {
	object := namespaceMetadata()
	key := client.ObjectKey{Name: name}
	err := c.cache.Get(ctx, key, object)
	if err != nil {
		err = c.direct.Get(ctx, key, object)
	}
	if err != nil {
		return policy.Namespace{Name: name, Unreadable: true}
	}
	return namespaceOf(name, object.Labels)
}

// Credentials finds pull secrets and ServiceAccounts through the API server.
func (c *Cluster) Credentials(names credential.Names) *credential.Source {
	return credentials(c, names)
}

// pullSecret reads a Secret that must not be watched, because it is not ours,
// and keeps its credentials for a moment. Nothing else of it is kept.
func (c *Cluster) pullSecret(ctx context.Context, namespace, name string) (pullSecret, error) {
	key := objectKey{namespace, name}
	if kept, ok := c.secrets.GetIfPresent(key); ok {
		return kept, nil
	}
	secret := &corev1.Secret{}
	found, err := c.ask(ctx, key, secret)
	if err != nil {
		return pullSecret{}, err
	}
	if !found {
		secret = nil
	}
	read := readPullSecret(secret)
	c.secrets.Set(key, read)
	return read, nil
}

// account reads a ServiceAccount, and keeps for as long what it names: there may
// be as many of them as there are Pods, and only few are needed again.
func (c *Cluster) account(ctx context.Context, namespace, name string) (account, error) {
	key := objectKey{namespace, name}
	if kept, ok := c.accounts.GetIfPresent(key); ok {
		return kept, nil
	}
	object := &corev1.ServiceAccount{}
	found, err := c.ask(ctx, key, object)
	if err != nil {
		return account{}, err
	}
	read := readAccount(object)
	read.missing = !found
	c.accounts.Set(key, read)
	return read, nil
}

// The pull secrets of a Pod, and its ServiceAccount, are in its own namespace,
// which may be any. Both are asked for by name alone: they can be neither listed
// nor watched.
//
// +kubebuilder:rbac:groups="",resources=secrets;serviceaccounts,verbs=get

// ask reads an object past the cache, and reports whether it is there.
func (c *Cluster) ask(ctx context.Context, key objectKey, into client.Object) (found bool, err error) {
	err = c.direct.Get(ctx, client.ObjectKey{Namespace: key.namespace, Name: key.name}, into)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("asking the API server: %w", err)
	}
	return true, nil
}
