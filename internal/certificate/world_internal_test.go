// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package certificate

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// world is a cluster as far as certificates go. Replicas and API servers learn
// late of what is written; who leads ends at any point, and another goes on.
type world struct {
	t      *testing.T
	random *rand.Rand
	now    time.Time
	times  Times

	secret  map[string][]byte // nil: there is none
	version int
	bundle  []byte // of both configurations
	// What was written when, for who learns late of it.
	secrets, bundles []written

	replicas   []*member
	apiservers []*member
	leader     int
	since      map[string]time.Time // what the leader has seen carried, since when
	broken     bool                 // the Secret is, by hand
	story      []string
}

type written struct {
	at   time.Time
	what map[string][]byte
}

// member is a replica or an API server. It knows what was written before seen.
type member struct {
	seen   time.Time
	late   time.Duration // at most
	served *leaf
	issuer authority
	all    []authority
	trusts *x509.CertPool
}

func newWorld(t *testing.T, seed uint64) *world {
	t.Helper()
	w := &world{t: t, random: rand.New(rand.NewPCG(seed, 1)), now: start(), times: DefaultTimes(), since: map[string]time.Time{}}
	// More happens in less time.
	w.times.Authority = 60 * day
	for range 3 {
		w.replicas = append(w.replicas, &member{late: w.times.Overlap})
	}
	for range 2 {
		// As late as is allowed for.
		w.apiservers = append(w.apiservers, &member{late: w.times.Overlap - time.Second})
	}
	return w
}

func (w *world) tellf(format string, args ...any) {
	w.story = append(w.story, w.now.Sub(start()).String()+" "+fmt.Sprintf(format, args...))
}

// write has everybody learn of a Secret, sooner or later.
func (w *world) write(data map[string][]byte) {
	w.secret = data
	w.version++
	w.secrets = append(w.secrets, written{w.now, data})
}

// learn lets a member see what was written until a while ago.
func (w *world) learn(m *member, from []written, take func(map[string][]byte)) {
	until := w.now.Add(-time.Duration(w.random.Int64N(int64(m.late) + 1)))
	if until.Before(m.seen) {
		until = m.seen // nobody unlearns
	}
	m.seen = until
	for _, w := range slices.Backward(from) {
		if !w.at.After(until) {
			take(w.what)
			return
		}
	}
}

func (w *world) everybodyLearns() {
	for _, r := range w.replicas {
		w.learn(r, w.secrets, func(data map[string][]byte) { w.serve(r, parse(data)) })
	}
	for _, a := range w.apiservers {
		w.learn(a, w.bundles, func(data map[string][]byte) {
			a.trusts = x509.NewCertPool()
			a.trusts.AppendCertsFromPEM(data[keyAuthorities])
		})
	}
}

// serve is what Keeper.look does at every replica.
func (w *world) serve(r *member, s state) state {
	k := &Keeper{o: Options{Now: func() time.Time { return w.now }}}
	if r.served != nil {
		k.served.Store(&served{leaf: r.served, issuer: r.issuer, authorities: r.all})
	}
	s = k.remember(s)
	if i := s.issuer(w.now); i >= 0 {
		r.served, r.issuer, r.all = s.leaf, s.authorities[i], s.authorities
	}
	return s
}

// keep is one look of the leader's at the Secret. crash says that it ends before
// it has written.
func (w *world) keep(crash bool) {
	leader := w.replicas[w.leader]
	s := w.serve(leader, parse(w.secret))
	p := planner{times: w.times, names: []string{service}, carried: func(c *x509.Certificate) time.Time { return w.since[string(c.Raw)] }}
	next, changed, err := p.next(w.now, s)
	if err != nil {
		w.t.Fatal(err)
	}
	if !changed || crash {
		return
	}
	data, err := next.data()
	if err != nil {
		w.t.Fatal(err)
	}
	w.write(data)
	w.broken = false
	w.serve(leader, next)
	w.tellf("replica %d wrote %d authorities, leaf by %d", w.leader, len(next.authorities), next.issuer(w.now))
}

// arm is one look of the leader's at the configurations.
func (w *world) arm(crash bool) {
	s := parse(w.secret)
	if s.issuer(w.now) < 0 || crash {
		return
	}
	if bundle := s.bundle(); !bytes.Equal(bundle, w.bundle) {
		w.bundle = bundle
		w.bundles = append(w.bundles, written{w.now, map[string][]byte{keyAuthorities: bundle}})
		w.tellf("the configurations carry %d authorities", len(s.authorities))
	}
	seen := map[string]time.Time{}
	for _, a := range s.authorities {
		seen[string(a.certificate.Raw)] = w.now
		if before, ok := w.since[string(a.certificate.Raw)]; ok {
			seen[string(a.certificate.Raw)] = before
		}
	}
	w.since = seen
}

// lead has another replica lead, which has seen nothing yet.
func (w *world) lead() {
	w.leader = w.random.IntN(len(w.replicas))
	w.since = map[string]time.Time{}
	w.tellf("replica %d leads", w.leader)
}

// restart takes away what a replica remembers. It reads the Secret as it is now,
// and while that is spoiled it is not ready: nobody asks it.
func (w *world) restart() {
	if w.broken {
		return
	}
	i := w.random.IntN(len(w.replicas))
	w.replicas[i] = &member{late: w.times.Overlap, seen: w.now}
	w.serve(w.replicas[i], parse(w.secret))
	w.tellf("replica %d starts", i)
	if i == w.leader {
		w.since = map[string]time.Time{}
	}
}

// spoil changes the Secret by hand, while the leader remembers what it was.
func (w *world) spoil() {
	leader := w.replicas[w.leader]
	if leader.served == nil || !leader.issuer.signed(leader.served, w.now) || parse(w.secret).leaf == nil {
		return
	}
	// A restart in the same moment would be a second fault.
	w.serve(leader, parse(w.secret))
	data := map[string][]byte{}
	for key, value := range w.secret {
		switch w.random.IntN(4) {
		case 0:
		case 1:
			data[key] = value[:w.random.IntN(len(value))]
		default:
			data[key] = value
		}
	}
	w.broken = true
	w.write(data)
	w.tellf("the Secret is spoiled")
}

// check compares what every replica serves with what every API server trusts.
func (w *world) check() {
	w.t.Helper()
	for i, r := range w.replicas {
		if r.served == nil || ended(r.served.certificate, w.now) {
			w.t.Fatalf("replica %d has no certificate\n%q", i, w.story)
		}
		for j, a := range w.apiservers {
			if _, err := r.served.certificate.Verify(x509.VerifyOptions{Roots: a.trusts, DNSName: service, CurrentTime: w.now}); err != nil {
				w.t.Fatalf("API server %d does not believe replica %d: %v\n%q", j, i, err, w.story)
			}
		}
	}
}

// TestNobodyIsEverDisbelieved plays years of a cluster: whatever crashes and
// whoever leads, what any replica serves is believed by every API server, though
// each of them is late by as much as the overlap allows.
func TestNobodyIsEverDisbelieved(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, seed)
			// An installation: armed once everybody is there.
			w.keep(false)
			w.arm(false)
			w.now = w.now.Add(2 * w.times.Overlap)
			w.everybodyLearns()
			rotations := 0
			for newest := []byte(nil); rotations < 6; {
				w.step()
				if s := parse(w.secret); len(s.authorities) > 0 && !bytes.Equal(s.authorities[0].certificate.Raw, newest) {
					newest = s.authorities[0].certificate.Raw
					rotations++
				}
				if t.Failed() || len(w.story) > 20_000 {
					t.Fatalf("after %d rotations: %q", rotations, w.story[max(0, len(w.story)-30):])
				}
			}
		})
	}
}

// step lets a while go by, long where nothing happens, and something happen.
func (w *world) step() {
	pause := time.Duration(w.random.Int64N(int64(w.times.Overlap / 4)))
	if s := parse(w.secret); len(s.authorities) == 1 && !w.broken && w.random.IntN(2) == 0 {
		pause = time.Duration(w.random.Int64N(int64(2 * day)))
	}
	if len(w.story) > 0 && parse(w.secret).issuer(w.now) == 0 && !w.broken && w.random.IntN(8) == 0 {
		pause = time.Duration(w.random.Int64N(int64(6 * time.Hour)))
	}
	w.now = w.now.Add(pause)
	switch w.random.IntN(40) {
	case 0, 1:
		w.lead()
	case 2:
		w.restart()
	case 3:
		if w.random.IntN(3) == 0 {
			w.spoil()
		}
	}
	w.keep(w.random.IntN(4) == 0)
	w.arm(w.random.IntN(4) == 0)
	w.everybodyLearns()
	w.check()
}
