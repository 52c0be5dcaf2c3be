// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package pullsecret

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
)

// maxNamed is how many namespaces a message names. There may be thousands.
const maxNamed = 3

func comparePlaces(a, b place) int {
	return cmp.Or(cmp.Compare(a.namespace, b.namespace), cmp.Compare(a.name, b.name))
}

// order is that of the reasons: what the admin has to mend first.
var order = []string{
	reasonSourceMissing, reasonSourceInvalid, reasonConflict, reasonForbidden,
	reasonFailed, reasonNotInNamespace, reasonCopied,
}

// report tells of the results, and the log of those that are new.
func (c *Copier) report(log logr.Logger, results map[string]Result) {
	for _, name := range slices.Sorted(maps.Keys(results)) {
		r := results[name]
		if before, known := c.logged[name]; !known || before != r {
			log.Info("copies of a pull secret", "imageConfig", name, "ok", r.OK, "reason", r.Reason, "detail", r.Message)
		}
	}
	c.logged = maps.Clone(results)
	c.o.Report(results)
}

// tell tells the log of troubles that are new.
func (c *Copier) tell(log logr.Logger, troubles map[place]string) {
	for _, at := range slices.SortedFunc(maps.Keys(troubles), comparePlaces) {
		if before, known := c.told[at]; !known || before != troubles[at] {
			log.Error(nil, "cannot remove copies of pull secrets",
				"namespace", at.namespace, "secret", at.name, "cause", troubles[at])
		}
	}
	c.told = troubles
}

func unreadNamespaces(wanted []Copy) map[string]Result {
	results := map[string]Result{}
	for _, w := range wanted {
		results[w.ImageConfig] = Result{Reason: reasonFailed, Message: "the namespaces cannot be read: the copies stay as they are"}
	}
	return results
}

// results says of every ImageConfig what came of its copies.
func (c *Copier) results(p *plan) map[string]Result {
	results := map[string]Result{}
	for _, w := range p.wanted {
		one := c.result(p, w)
		other, known := results[w.ImageConfig]
		if known {
			one = worse(one, other)
		}
		results[w.ImageConfig] = one
	}
	return results
}

func worse(a, b Result) Result {
	if slices.Index(order, a.Reason) < slices.Index(order, b.Reason) {
		return a
	}
	return b
}

// result says what came of one Secret in the namespaces of one ImageConfig.
func (c *Copier) result(p *plan, w Copy) Result {
	source := fmt.Sprintf("Secret %q of namespace %q", w.Secret, c.o.Namespace)
	switch from := p.origins[w.Secret]; from.state {
	case missing:
		return Result{Reason: reasonSourceMissing, Message: "there is no " + source}
	case unreadable:
		return Result{Reason: reasonFailed, Message: source + " cannot be read: its copies stay as they are"}
	case invalid:
		return Result{Reason: reasonSourceInvalid, Message: source + " " + from.mistake() + ": its copies stay as they are"}
	case valid:
	}
	return c.outcome(p, w)
}

// mistake says what is wrong with a Secret of ours. Its type is left out: it is
// any text, and the admin sees it in the Secret.
func (from origin) mistake() string {
	if from.key == "" {
		return fmt.Sprintf("must be of type %s or %s", corev1.SecretTypeDockerConfigJson, corev1.SecretTypeDockercfg)
	}
	return fmt.Sprintf("has no key %q", from.key)
}

// outcome puts together what came of the copies of a Secret that is as it
// should be.
func (c *Copier) outcome(p *plan, w Copy) Result {
	by := map[string][]string{} // namespaces by reason
	causes := map[string]string{}
	for _, namespace := range p.selected(w) {
		if namespace == c.o.Namespace {
			continue
		}
		reason := reasonNotInNamespace
		if c.allowed(namespace) {
			o := p.outcomes[place{namespace, w.Secret}]
			reason = o.reason()
			causes[reason] = cmp.Or(causes[reason], o.cause)
		}
		by[reason] = append(by[reason], namespace)
	}
	r := Result{OK: true, Reason: reasonCopied}
	var said []string
	bad := func(reason, message string) {
		if r.OK {
			r.OK, r.Reason = false, reason
		}
		said = append(said, message)
	}
	for _, reason := range order {
		if where := by[reason]; len(where) > 0 && reason != reasonCopied {
			bad(reason, complaint(reason, w.Secret, causes[reason])+": "+named(where))
		}
	}
	if left := p.leftovers[w.Secret]; len(left) > 0 {
		bad(reasonFailed, fmt.Sprintf(
			"copies of Secret %q that are not wanted any more could not be removed: %s", w.Secret, named(left)))
	}
	if r.OK {
		said = append(said, fmt.Sprintf("namespaces with a copy of Secret %q: %d", w.Secret, len(by[reasonCopied])))
	}
	if later := len(by[reasonLater]); later > 0 {
		said = append(said, fmt.Sprintf("namespaces where somebody else wrote at the same time, tried again: %d", later))
	}
	r.Message = strings.Join(said, "; ")
	return r
}

// reasonLater is of copies that are tried again, which is nobody's fault.
const reasonLater = ""

func (o outcome) reason() string {
	switch o.kind {
	case copied:
		return reasonCopied
	case raced:
		return reasonLater
	case foreign:
		return reasonConflict
	case refused:
		return reasonForbidden
	case failed:
	}
	return reasonFailed
}

// complaint says what is wrong in the namespaces that are named after it.
func complaint(reason, secret, cause string) string {
	switch reason {
	case reasonConflict:
		return fmt.Sprintf("a Secret %q that is not Pratique's is there, and is left alone", secret)
	case reasonForbidden:
		return fmt.Sprintf("Secret %q may not be read or written (the ClusterRole pratique-inject is not bound there,"+
			" or a quota or another admission webhook refuses it)", secret)
	case reasonNotInNamespace:
		return "selected, but not among --inject-namespaces"
	default:
		return fmt.Sprintf("Secret %q could not be copied (%s)", secret, cause)
	}
}

// named names some namespaces, and says how many more there are.
func named(namespaces []string) string {
	if len(namespaces) <= maxNamed {
		return strings.Join(namespaces, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(namespaces[:maxNamed], ", "), len(namespaces)-maxNamed)
}
