// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package containers

import (
	"cmp"
	"context"
	"iter"
	"net/url"

	"golang.org/x/sync/errgroup"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/registry"
)

// evidence is one manifest and what is said of it. Nothing of it is verified.
type evidence struct {
	room *room
	host string
	// lookaside is where signatures were looked for, nil for nowhere; attached says
	// that sigstore attachments were.
	lookaside *url.URL
	attached  bool
	// unconfigured says that there is no registries.d at all.
	unconfigured bool

	manifest   haul
	simple     haul
	sigstore   haul
	unreadable error // of the manifest
}

// haul is what one sequence brought.
type haul struct {
	untrusted [][]byte // as the library reads it from a folder
	bytes     int
	size      int64 // in the room
	// err says why there may be more than that.
	err error
}

// signatures are all that were found, in an order that does not change.
func (e *evidence) signatures() [][]byte {
	all := make([][]byte, 0, len(e.simple.untrusted)+len(e.sigstore.untrusted))
	return append(append(all, e.simple.untrusted...), e.sigstore.untrusted...)
}

// err says why there may be more signatures than were found.
func (e *evidence) err() error {
	if e.simple.err != nil {
		return e.simple.err
	}
	return e.sigstore.err
}

// release gives back the room that was taken. What took it is not used any more.
func (e *evidence) release() {
	e.room.give(e.host, e.manifest.size+e.simple.size+e.sigstore.size)
}

// add keeps something, once there is room for it.
func (e *evidence) add(ctx context.Context, to *haul, untrusted []byte) error {
	n := max(int64(len(untrusted)), block)
	if err := e.room.take(ctx, e.host, n); err != nil {
		return err
	}
	to.size += n
	to.untrusted = append(to.untrusted, untrusted)
	return nil
}

// addSignature is add, within the bound of one kind.
func (e *evidence) addSignature(ctx context.Context, to *haul, untrusted []byte) error {
	if to.bytes += len(untrusted); to.bytes > maxSignatures {
		return policy.Undecided(policy.ReasonLimit, "its signatures of one kind are larger than %d bytes altogether", maxSignatures).Err()
	}
	return e.add(ctx, to, untrusted)
}

// collect reads what is said of a manifest, and at last, so that nothing large is
// kept while somebody else is waited for, the manifest. Release must be called in
// any case.
func (v *Verifier) collect(ctx context.Context, image policy.Image) *evidence {
	e := &evidence{room: v.room, host: image.Reference.Host(), attached: v.looksForAttachments(image), unconfigured: v.registries == nil}
	e.lookaside = v.registries.Lookaside(image.Reference)
	var group errgroup.Group
	group.Go(func() error {
		e.simple.err = guarded(func() error { return e.readSimple(ctx, v.source.SimpleSignatures(ctx, image, e.lookaside)) })
		return nil
	})
	if e.attached {
		group.Go(func() error {
			e.sigstore.err = guarded(func() error { return e.readAttached(ctx, v.source.Attachments(ctx, image)) })
			return nil
		})
	}
	_ = group.Wait() // the errors are kept by what they are of
	e.unreadable = guarded(func() error {
		untrusted, err := v.source.Manifest(ctx, image)
		if err != nil {
			return err
		}
		return e.add(ctx, &e.manifest, untrusted)
	})
	return e
}

// looksForAttachments reports whether sigstore attachments are looked for.
func (v *Verifier) looksForAttachments(image policy.Image) bool {
	if !v.has(kindSigstore) {
		return false
	}
	if use, said := v.registries.Attachments(image.Reference); said {
		return use
	}
	return v.attached
}

// readSimple keeps going after a signature that is not read, or too dear to be
// judged: any good one is enough.
func (e *evidence) readSimple(ctx context.Context, found iter.Seq2[registry.SimpleSignature, error]) (unread error) {
	for one, err := range found {
		untrusted := one.Untrusted
		if err == nil {
			if one.ByRegistry {
				untrusted = append([]byte(simplePrefix), untrusted...)
			}
			err = screen(untrusted)
		}
		if err == nil {
			err = e.addSignature(ctx, &e.simple, untrusted)
		}
		unread = cmp.Or(unread, err)
	}
	return unread
}

// readAttached is readSimple for sigstore attachments.
func (e *evidence) readAttached(ctx context.Context, found iter.Seq2[registry.Signature, error]) (unread error) {
	for one, err := range found {
		var untrusted []byte
		if err == nil {
			untrusted, err = attachment(one)
			err = cmp.Or(screenCertificates(one.UntrustedAnnotations), err)
		}
		if err == nil {
			err = e.addSignature(ctx, &e.sigstore, untrusted)
		}
		unread = cmp.Or(unread, err)
	}
	return unread
}

// guarded makes a panic an error: what a registry sent must not end the process.
func guarded(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = policy.Panicked(p).Err()
		}
	}()
	return f()
}
