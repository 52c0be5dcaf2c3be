// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package certificate

import (
	"crypto/x509"
	"slices"
	"time"
)

// planner says what the Secret should hold next. Whatever it says is written at
// once or not at all, and is right whoever reads it when: there is no step that
// a crash could leave half done.
//
// What must stay true: a leaf that any replica may serve is believed by whoever
// trusts the authorities that any API server may have read. So an authority
// signs only what goes to replicas after the API servers know it, and leaves
// only after no replica has a leaf of its.
type planner struct {
	times Times
	names []string
	// carried is since when both configurations have carried an authority; zero
	// if they do not, or nobody knows.
	carried func(*x509.Certificate) time.Time
}

// next is the state that should follow, and whether it differs.
func (p planner) next(now time.Time, s state) (_ state, changed bool, err error) {
	n := state{leaf: s.leaf}
	n.authorities = slices.DeleteFunc(slices.Clone(s.authorities), func(a authority) bool { return ended(a.certificate, now) })
	changed = s.damaged || len(n.authorities) != len(s.authorities)
	if n.issuer(now) < 0 {
		n.leaf = nil // nobody believes it
	}
	if p.needsAuthority(now, n) {
		fresh, err := newAuthority(now, p.times.Authority)
		if err != nil {
			return s, false, err
		}
		// Those before the leaf's own have signed nothing, and never will.
		n.authorities = append([]authority{fresh}, n.authorities[max(0, n.issuer(now)):]...)
		changed = true
	}
	issued, err := p.issue(now, &n)
	if err != nil {
		return s, false, err
	}
	retired := !issued && p.retire(now, &n)
	return n, changed || issued || retired, nil
}

// issuer is the index of the newest authority by which the leaf is believed; -1
// for none.
func (s state) issuer(now time.Time) int {
	if s.leaf == nil {
		return -1
	}
	return slices.IndexFunc(s.authorities, func(a authority) bool { return a.signed(s.leaf, now) })
}

// needsAuthority reports whether the newest authority cannot sign, or will end.
func (planner) needsAuthority(now time.Time, s state) bool {
	if len(s.authorities) == 0 || s.authorities[0].key == nil {
		return true
	}
	newest := s.authorities[0].certificate
	return !now.Before(due(made(newest), newest.NotAfter))
}

// issue gives the state another leaf, if it is time.
func (p planner) issue(now time.Time, s *state) (bool, error) {
	by := p.signer(now, *s)
	if by < 0 || !p.wantsLeaf(now, *s, by) {
		return false, nil
	}
	issued, err := s.authorities[by].issue(now, p.times.Leaf, p.names)
	if err != nil {
		return false, err
	}
	s.leaf = issued
	// What is never asked to sign again can be stolen no more.
	for i := by + 1; i < len(s.authorities); i++ {
		s.authorities[i].key = nil
	}
	return true, nil
}

// signer is the index of the authority that signs leaves now; -1 for none.
func (p planner) signer(now time.Time, s state) int {
	issuer := s.issuer(now)
	for i, a := range s.authorities {
		if i == issuer {
			break // never back to an older one
		}
		if a.key != nil && p.inForce(now, a) {
			return i
		}
	}
	if issuer >= 0 {
		if s.authorities[issuer].key == nil {
			return -1 // until a newer one is known
		}
		return issuer
	}
	// Without a leaf nothing is served, so nothing can be lost. The oldest that
	// can still sign is the likeliest to be known to API servers already.
	for i, a := range slices.Backward(s.authorities) {
		if a.key != nil {
			return i
		}
	}
	return -1
}

// inForce reports whether API servers know an authority by now.
func (p planner) inForce(now time.Time, a authority) bool {
	since := p.carried(a.certificate)
	return !since.IsZero() && now.Sub(since) >= p.times.Overlap
}

// wantsLeaf reports whether the authority of that index has to issue a leaf.
func (p planner) wantsLeaf(now time.Time, s state, by int) bool {
	if s.leaf == nil || by != s.issuer(now) || !s.leaf.covers(p.names) {
		return true
	}
	current := s.leaf.certificate
	// One that ended no later would be replaced for nothing, again and again.
	return !now.Before(due(made(current), current.NotAfter)) && s.authorities[by].until(now, p.times.Leaf).After(current.NotAfter)
}

// retire takes away the authorities whose leaves nobody can be serving.
func (p planner) retire(now time.Time, s *state) bool {
	issuer := s.issuer(now)
	if issuer < 0 || issuer == len(s.authorities)-1 || now.Before(made(s.leaf.certificate).Add(p.times.Retire)) {
		return false
	}
	s.authorities = slices.Clone(s.authorities[:issuer+1])
	return true
}
