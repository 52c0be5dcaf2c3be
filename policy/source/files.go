// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/go-logr/logr"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/registry/credential"
)

const (
	// settle is how long changes of files are collected before they are read.
	settle = 100 * time.Millisecond
	// poll finds changes that no notification told of, as on network file
	// systems. Changes are in force within 5 s (spec section 3).
	poll = 2 * time.Second
)

// Files reads rules from manifests: files, or folders of *.yaml, *.yml and
// *.json, that hold ImageConfigs (Crossplane's too), ClusterImagePolicies,
// TrustRoots, Secrets, ConfigMaps, Namespaces and ServiceAccounts, one by one or
// in a List. Other kinds that a folder may hold are passed over.
type Files struct {
	live

	compiler  Compiler
	namespace string // Pratique's own
	paths     []string
	// tried is the checksum of the files that were parsed last, whether or
	// not they could be.
	tried     [sha256.Size]byte
	manifests atomic.Pointer[manifests]
	compiled  atomic.Pointer[[]Compiled]
	changed   chan struct{}
}

// NewFiles reads manifests for the first time. It returns an error if a file
// cannot be read or parsed; an ImageConfig with a mistake is not one: it is
// kept as a rule that holds images back.
func NewFiles(compiler Compiler, namespace string, paths ...string) (*Files, error) {
	compiler.namespace, compiler.Check = namespace, remembered(compiler.Check)
	compiler.PolicyController.archives = newArchives()
	f := &Files{compiler: compiler, namespace: namespace, paths: paths, changed: make(chan struct{}, 1)}
	_, err := f.reload()
	return f, err
}

// Compiled lists the ImageConfigs as they are in force.
func (f *Files) Compiled() []Compiled { return *f.compiled.Load() }

// reload reads all files and, if they changed, swaps the Set. What cannot be
// parsed leaves the last Set in force, and is not tried again until it changes.
func (f *Files) reload() (changed bool, err error) {
	read, err := readFiles(f.paths)
	if err != nil {
		return false, err
	}
	now := checksum(read)
	if now == f.tried {
		return false, nil
	}
	f.tried = now
	return true, f.swap(read)
}

// swap compiles what files say and puts it in force.
func (f *Files) swap(files []file) error {
	read, err := parseFiles(files, f.namespace)
	if err != nil {
		return err
	}
	return f.compile(read)
}

// compile puts manifests in force.
func (f *Files) compile(read *manifests) error {
	compiled := make([]Compiled, 0, len(read.configs))
	for _, raw := range read.configs {
		c, err := f.compiler.Compile(raw, read.objects())
		if err != nil {
			return err
		}
		compiled = append(compiled, c)
	}
	for _, raw := range read.crossplane {
		c, err := f.compiler.CompileCrossplane(raw, read.objects())
		if err != nil {
			return err
		}
		compiled = append(compiled, c)
	}
	compiled = append(compiled, f.compiler.imagePolicies(read.policyController, read.objects())...)
	f.compiler.finish(compiled)
	f.manifests.Store(read)
	f.compiled.Store(&compiled)
	f.set.Store(f.compiler.newSet(compiled))
	if retry(compiled) {
		f.undone.set(compileAgain, f.Again)
	}
	return nil
}

// Again has the rules compiled again while Watch runs: something that they rest on
// and that is in no file changed.
func (f *Files) Again() { signal(f.changed) }

// Pending names the rules that wait for what is being fetched.
func (f *Files) Pending() []string { return pending(f.Compiled()) }

// Namespace describes a namespace by its manifest. The labels of one that has
// none are unknown.
func (f *Files) Namespace(_ context.Context, name string) policy.Namespace {
	set, ok := f.manifests.Load().namespaces[name]
	if !ok {
		return policy.Namespace{Name: name, Unreadable: true}
	}
	return namespaceOf(name, set)
}

// Credentials finds pull secrets and ServiceAccounts among the manifests.
func (f *Files) Credentials(names credential.Names) *credential.Source {
	return credentials(f.manifests.Load(), names)
}

// Watch logs the rules in force and reloads them on change until ctx ends.
// What cannot be read is logged, and the last good rules stay in force.
func (f *Files) Watch(ctx context.Context) error {
	log := logr.FromContextOrDiscard(ctx)
	f.log(log)
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watching files: %w", err)
	}
	defer func() { _ = watcher.Close() }()
	for _, path := range f.paths {
		// Polling finds what cannot be watched.
		if err := watcher.Add(path); err != nil {
			log.Error(err, "cannot watch, polling instead", "path", path)
		}
	}
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	var last string
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-watcher.Events:
			if !pause(ctx, settle) {
				return nil
			}
			drain(watcher.Events)
		case err := <-watcher.Errors:
			log.Error(err, "cannot watch, polling instead")
		case <-f.changed:
			f.recompile(log)
		case <-ticker.C:
		}
		last = f.again(log, last)
	}
}

// again reloads and logs what came of it. It returns the error as a text, and
// is given that of the last time: one that lasts is told once.
func (f *Files) again(log logr.Logger, last string) string {
	changed, err := f.reload()
	if err != nil {
		if err.Error() != last {
			log.Error(err, "cannot reload the policies: the last good ones stay in force")
		}
		return err.Error()
	}
	if changed {
		f.log(log)
	}
	return ""
}

// recompile compiles the manifests that are in force already.
func (f *Files) recompile(log logr.Logger) {
	if err := f.compile(f.manifests.Load()); err != nil {
		log.Error(err, "cannot compile the policies: the last good ones stay in force")
		return
	}
	f.log(log)
}

// log logs the rules in force. Without a cluster, having none is hardly meant.
func (f *Files) log(log logr.Logger) {
	compiled := f.Compiled()
	if len(f.Set().Rules()) == 0 {
		log.Error(nil, "no ImageConfig in the files: every image is let in, unless --unmatched=Deny", "paths", f.paths)
		return
	}
	logCompiled(log, compiled)
}

func drain(events <-chan fsnotify.Event) {
	for {
		select {
		case <-events:
		default:
			return
		}
	}
}

// logCompiled logs how many rules came into force, and each that is not ready.
func logCompiled(log logr.Logger, compiled []Compiled) {
	log.Info("policies in force", "imageConfigs", len(compiled))
	for _, c := range compiled {
		switch {
		case !c.Ready:
			log.Info("an ImageConfig is not ready", "kind", c.Rule.Kind, "name", c.Rule.Name, "reason", c.Reason, "message", c.Message)
		case c.Message != inForce:
			log.Info("an ImageConfig is in force, but", "kind", c.Rule.Kind, "name", c.Rule.Name, "message", c.Message)
		}
	}
}
