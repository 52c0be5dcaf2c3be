// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package pullsecret keeps copies of pull secrets where Pods are given them.
//
// The kubelet reads a Pod's imagePullSecrets from the Pod's own namespace, and
// the Secrets that ImageConfigs name are in Pratique's. What makes a Secret a
// copy of ours is its label alone: without it nothing is changed or removed,
// whatever the Secret is called. So a process that has just started knows what
// its predecessor left behind, and nobody's own Secret is ever lost.
//
// No message and no log line has anything of an error of the API server's but
// its kind: errors of decoding, and of other admission webhooks, may quote what
// was sent.
package pullsecret

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// labelCopy, with the value valueCopy, marks the Secrets that are ours.
	labelCopy = "pratique.dev/pull-secret"
	valueCopy = "copy"
	// annotationFrom says of what Secret one is the copy: namespace/name.
	annotationFrom = "pratique.dev/copied-from"

	// Of https://kubernetes.io/docs/concepts/overview/working-with-objects/common-labels/.
	labelManagedBy = "app.kubernetes.io/managed-by"
	valueManagedBy = "pratique"
)

const (
	// collect is how long changes are gathered before they are acted upon.
	collect = 100 * time.Millisecond
	// lookAgain is how often is asked whether this replica leads by now.
	lookAgain = 250 * time.Millisecond
	// repairEvery is when all copies are read again (spec section 7): they are
	// not watched, because that would take the right to read all Secrets.
	repairEvery = time.Minute
	// retryAfter is when is tried again what failed.
	retryAfter = 5 * time.Second
	// askFor bounds one copy, or one list, of a slow API server.
	askFor = 10 * time.Second
	// passFor bounds the copying of a pass, and as much again its removing, so
	// that neither keeps the other from its turn.
	passFor = 30 * time.Second
	// atOnce is how many copies are worked on at the same time.
	atOnce = 8
)

// everywhere, alone in Options.In, stands for all namespaces.
const everywhere = "*"

// Copy is a pull secret and where it is wanted.
type Copy struct {
	ImageConfig string          // that asks for it, for reports
	Secret      string          // its name, there and here
	Namespaces  labels.Selector // whose Pods are given it
}

// Result is what came of the copies of one ImageConfig.
type Result struct {
	OK bool
	// Of a condition. Reason is Copied, Conflict, Forbidden, SourceMissing,
	// SourceInvalid, NotInNamespace or Failed.
	Reason, Message string
}

// The reasons of a Result. Where several apply, the first of this order is said.
const (
	reasonSourceMissing  = "SourceMissing"
	reasonSourceInvalid  = "SourceInvalid"
	reasonConflict       = "Conflict"
	reasonForbidden      = "Forbidden"
	reasonFailed         = "Failed"
	reasonNotInNamespace = "NotInNamespace"
	reasonCopied         = "Copied"
)

// Options are what a Copier works with. All but Changed are needed.
type Options struct {
	// Client reads and writes copies. It must not read from a cache: what is
	// written depends on what was read.
	Client    client.Client
	Namespace string   // Pratique's own: where the sources are, never a target
	In        []string // the namespaces that may be written to; "*" alone is all
	// Leads reports whether this replica is the one that writes now.
	Leads func() bool
	// Wanted is what the ImageConfigs in force ask for. It is nil until they are
	// read, then not any more, even if they ask for nothing.
	Wanted func() []Copy
	// Unread reports whether there are ImageConfigs of which it cannot be read
	// what they ask for. Then no copy is removed: a mistake in writing takes no
	// credentials from what runs. Nil means that there are never any.
	Unread func() bool
	// Source reads a Secret of Namespace from a cache. It returns nil and no
	// error if there is none, and only then: its copies are removed.
	Source func(ctx context.Context, name string) (*corev1.Secret, error)
	// Namespaces are all that are not terminating, with their labels.
	Namespaces func(ctx context.Context) (map[string]labels.Set, error)
	// Changed tells that something of the above did.
	Changed <-chan struct{}
	// Report is given the result of every ImageConfig after each pass.
	Report func(map[string]Result)
}

// Copier keeps the copies.
type Copier struct {
	o   Options
	led bool      // when it was last looked
	due time.Time // of the next pass
	// What the log was told last, to tell it once.
	logged map[string]Result
	told   map[place]string
}

// New makes a Copier, which [Copier.Run] sets to work.
func New(o Options) *Copier { return &Copier{o: o} }

// Run keeps the copies until ctx ends. It writes only while this replica leads.
func (c *Copier) Run(ctx context.Context) error {
	looking := time.NewTicker(lookAgain)
	defer looking.Stop()
	changed := c.o.Changed
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-looking.C:
		case _, open := <-changed:
			if !open {
				changed = nil // a closed channel would be ready for ever
			}
			if !gather(ctx, changed) {
				return nil
			}
			c.due = time.Time{}
		}
		c.turn(ctx)
	}
}

// turn makes a pass if one is due and this replica leads.
func (c *Copier) turn(ctx context.Context) {
	leads := c.o.Leads()
	if leads && !c.led {
		c.due = time.Time{} // whoever led before may have left things undone
	}
	c.led = leads
	if !leads || time.Now().Before(c.due) {
		return
	}
	switch c.pass(ctx) {
	case notYet: // asked again when it is looked again
	case unfinished:
		c.due = time.Now().Add(retryAfter)
	case finished:
		c.due = time.Now().Add(repairEvery)
	}
}

// gather waits for changes that come together, and reports whether that came to
// its end before ctx.
func gather(ctx context.Context, changed <-chan struct{}) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(collect):
	}
	select {
	case <-changed: // came in the meantime, and is about to be read
	default:
	}
	return true
}
