// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package pullsecret

import (
	"context"
	"slices"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// progress is how far a pass came.
type progress int

const (
	notYet     progress = iota // there was nothing to go by, or it is another's turn
	unfinished                 // something is to be tried again soon
	finished
)

// place is where a copy is.
type place struct{ namespace, name string }

// origin is a Secret of Pratique's own namespace.
type origin struct {
	state originState
	kind  corev1.SecretType
	key   string
	value []byte
}

type originState int

const (
	unreadable originState = iota
	missing
	invalid
	valid
)

// plan is what one pass has to do.
type plan struct {
	wanted     []Copy
	namespaces map[string]labels.Set
	origins    map[string]origin
	kept       map[place]bool // all places that may have a copy
	// outcomes of the places that are to have the copy of a valid origin.
	outcomes map[place]outcome
	// leftovers are copies that are not wanted any more and are still there.
	leftovers map[string][]string // namespaces by name
	// troubles are causes for which a copy could not be removed, or, with no
	// name, for which those of a namespace could not be listed.
	troubles map[place]string
}

// everywhere reports whether all namespaces may be written to.
func (c *Copier) everywhere() bool { return len(c.o.In) == 1 && c.o.In[0] == everywhere }

// allowed reports whether a namespace may be written to.
func (c *Copier) allowed(namespace string) bool {
	return namespace != c.o.Namespace && (c.everywhere() || slices.Contains(c.o.In, namespace))
}

// pass makes all copies what they should be.
func (c *Copier) pass(ctx context.Context) progress {
	log := logr.FromContextOrDiscard(ctx)
	wanted := c.o.Wanted()
	if wanted == nil {
		return notYet
	}
	namespaces, err := c.o.Namespaces(ctx)
	if ctx.Err() != nil {
		return notYet
	}
	if err != nil {
		// Without them all copies would seem to be in the wrong place.
		log.Error(nil, "cannot read the namespaces: the copies of pull secrets stay as they are", "cause", cause(err))
		c.report(log, unreadNamespaces(wanted))
		return unfinished
	}
	p := c.plan(ctx, wanted, namespaces)
	done := c.copyAll(ctx, p)
	if c.o.Unread == nil || !c.o.Unread() {
		done = c.removeAll(ctx, p) && done
	}
	if ctx.Err() != nil || !c.o.Leads() {
		return notYet // cut short: what came of it is not for us to say
	}
	c.tell(log, p.troubles)
	c.report(log, c.results(p))
	if !done {
		return unfinished
	}
	return finished
}

// plan finds out what is to be where.
func (c *Copier) plan(ctx context.Context, wanted []Copy, namespaces map[string]labels.Set) *plan {
	p := &plan{
		wanted: wanted, namespaces: namespaces,
		origins: map[string]origin{}, kept: map[place]bool{},
		outcomes: map[place]outcome{}, leftovers: map[string][]string{}, troubles: map[place]string{},
	}
	for _, w := range wanted {
		from, read := p.origins[w.Secret]
		if !read {
			from = c.origin(ctx, w.Secret)
			p.origins[w.Secret] = from
		}
		if from.state == missing {
			continue // and its copies go
		}
		for _, namespace := range p.selected(w) {
			if !c.allowed(namespace) {
				continue
			}
			at := place{namespace, w.Secret}
			p.kept[at] = true
			if from.state == valid {
				p.outcomes[at] = outcome{kind: failed, cause: causeTime} // until it is worked on
			}
		}
	}
	return p
}

// selected lists the namespaces whose Pods are given a copy, in order.
func (p *plan) selected(w Copy) []string {
	if w.Namespaces == nil {
		return nil
	}
	var names []string
	for name, set := range p.namespaces {
		if w.Namespaces.Matches(set) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// origin reads a Secret of ours, and takes from it what a copy has.
func (c *Copier) origin(ctx context.Context, name string) origin {
	secret, err := c.o.Source(ctx, name)
	if err != nil {
		return origin{state: unreadable}
	}
	if secret == nil {
		return origin{state: missing}
	}
	from := origin{state: invalid, kind: secret.Type}
	switch secret.Type {
	case corev1.SecretTypeDockerConfigJson:
		from.key = corev1.DockerConfigJsonKey
	case corev1.SecretTypeDockercfg:
		from.key = corev1.DockerConfigKey
	default:
		return from
	}
	if from.value = secret.Data[from.key]; len(from.value) > 0 {
		from.state = valid
	}
	return from
}

// parallel does n things, a few at a time, and none any more once ctx ended.
func parallel(ctx context.Context, n int, do func(ctx context.Context, i int)) {
	var group errgroup.Group
	group.SetLimit(atOnce)
	for i := range n {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, askFor)
			defer cancel()
			do(ctx, i)
			return nil
		})
	}
	_ = group.Wait() // nothing above returns an error
}

// copyAll makes the copies, and reports whether none is to be tried again.
func (c *Copier) copyAll(ctx context.Context, p *plan) (done bool) {
	ctx, cancel := context.WithTimeout(ctx, passFor)
	defer cancel()
	places := make([]place, 0, len(p.outcomes))
	for at := range p.outcomes {
		places = append(places, at)
	}
	slices.SortFunc(places, comparePlaces)
	outcomes := make([]outcome, len(places))
	for i, at := range places {
		outcomes[i] = p.outcomes[at]
	}
	parallel(ctx, len(places), func(ctx context.Context, i int) {
		outcomes[i] = c.copyTo(ctx, places[i], p.origins[places[i].name])
	})
	done = true
	for i, at := range places {
		p.outcomes[at] = outcomes[i]
		done = done && !outcomes[i].retried()
	}
	for _, from := range p.origins {
		done = done && from.state != unreadable
	}
	return done
}

// removeAll removes the copies that are not wanted any more, and reports
// whether none is to be tried again.
func (c *Copier) removeAll(ctx context.Context, p *plan) (done bool) {
	ctx, cancel := context.WithTimeout(ctx, passFor)
	defer cancel()
	found, done := c.copies(ctx, p)
	unwanted := slices.DeleteFunc(found, func(one metav1.PartialObjectMetadata) bool {
		at := place{one.Namespace, one.Name}
		// A namespace that is not known is terminating, or was made a moment ago;
		// either way it is too soon to say that nothing is wanted there.
		_, known := p.namespaces[at.namespace]
		return !known || !c.ours(&one) || !c.allowed(at.namespace) || p.kept[at] || !one.DeletionTimestamp.IsZero()
	})
	outcomes := make([]outcome, len(unwanted))
	for i := range outcomes {
		outcomes[i] = outcome{kind: failed, cause: causeTime}
	}
	parallel(ctx, len(unwanted), func(ctx context.Context, i int) {
		outcomes[i] = c.remove(ctx, &unwanted[i])
	})
	for i, o := range outcomes {
		done = done && !o.retried()
		if o.kind == refused || o.kind == failed {
			namespace, name := unwanted[i].Namespace, unwanted[i].Name
			p.leftovers[name] = append(p.leftovers[name], namespace)
			p.troubles[place{namespace, name}] = o.cause
		}
	}
	return done
}

// listed names the namespaces to list Secrets of. The right to list those of all
// namespaces is asked for only if all may be written to.
func (c *Copier) listed(p *plan) []string {
	if c.everywhere() {
		return []string{metav1.NamespaceAll}
	}
	var in []string
	for _, namespace := range c.o.In {
		if _, known := p.namespaces[namespace]; known && c.allowed(namespace) {
			in = append(in, namespace)
		}
	}
	slices.Sort(in)
	return slices.Compact(in)
}

// copies lists the Secrets that are ours, without what is in them, and reports
// whether all of them could be.
func (c *Copier) copies(ctx context.Context, p *plan) (found []metav1.PartialObjectMetadata, all bool) {
	in := c.listed(p)
	lists := make([]metav1.PartialObjectMetadataList, len(in))
	outcomes := make([]outcome, len(in))
	for i := range outcomes {
		outcomes[i] = outcome{kind: failed, cause: causeTime}
	}
	parallel(ctx, len(in), func(ctx context.Context, i int) {
		lists[i].SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("SecretList"))
		outcomes[i] = outcomeOf(c.o.Client.List(ctx, &lists[i],
			client.InNamespace(in[i]), client.MatchingLabels{labelCopy: valueCopy}))
	})
	all = true
	for i, o := range outcomes {
		if o.kind == copied {
			found = append(found, lists[i].Items...)
			continue
		}
		all = false
		p.troubles[place{namespace: in[i]}] = o.cause
	}
	return found, all
}
