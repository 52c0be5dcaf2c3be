// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package certificate

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const service = "pratique.pratique-system.svc"

// start is when the tests begin.
func start() time.Time { return time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC) }

// history lets time go by, and says in a word or two what the planner did.
type history struct {
	t       *testing.T
	planner planner
	state   state
	now     time.Time
	known   map[string]time.Time // since when an authority is carried
	names   map[string]string    // of authorities, A, B, … as they come
}

func newHistory(t *testing.T) *history {
	t.Helper()
	h := &history{t: t, now: start(), known: map[string]time.Time{}, names: map[string]string{}}
	h.planner = planner{times: DefaultTimes(), names: []string{service}, carried: func(c *x509.Certificate) time.Time { return h.known[string(c.Raw)] }}
	return h
}

// carry has the configurations carry what the Secret holds, from now on.
func (h *history) carry() {
	carried := map[string]time.Time{}
	for _, a := range h.state.authorities {
		since, ok := h.known[string(a.certificate.Raw)]
		if !ok {
			since = h.now
		}
		carried[string(a.certificate.Raw)] = since
	}
	h.known = carried
}

// step asks the planner once, through the Secret's own form.
func (h *history) step() string {
	h.t.Helper()
	next, changed, err := h.planner.next(h.now, h.state)
	if err != nil {
		h.t.Fatal(err)
	}
	if !changed {
		return ""
	}
	data, err := next.data()
	if err != nil {
		h.t.Fatal(err)
	}
	h.state = parse(data)
	return h.String()
}

// after lets time go by.
func (h *history) after(d time.Duration) *history {
	h.now = h.now.Add(d)
	return h
}

// String is the state: authorities, those that can sign in capitals, and after a
// colon who signed the leaf, and for how long it is good from now.
func (h *history) String() string {
	var b strings.Builder
	for _, a := range h.state.authorities {
		name, ok := h.names[string(a.certificate.Raw)]
		if !ok {
			name = string(rune('A' + len(h.names)))
			h.names[string(a.certificate.Raw)] = name
		}
		if a.key == nil {
			name = strings.ToLower(name)
		}
		b.WriteString(name)
	}
	if i := h.state.issuer(h.now); i >= 0 {
		fmt.Fprintf(&b, ":%s %.0fh", h.names[string(h.state.authorities[i].certificate.Raw)], h.state.leaf.certificate.NotAfter.Sub(h.now).Hours())
	}
	return b.String()
}

func (h *history) want(want string) {
	h.t.Helper()
	if got := h.step(); got != want {
		h.t.Errorf("at %s: %q, want %q", h.now.Sub(start()), got, want)
	}
}

const day = 24 * time.Hour

// TestLife is a year of a Secret, in good order.
func TestLife(t *testing.T) {
	t.Parallel()
	h := newHistory(t)
	h.want("A:A 720h")
	h.want("")
	h.carry()
	h.after(19 * day).want("")
	h.after(day).want("A:A 720h")
	// Two thirds of a year.
	h.now = start().Add(365 * day * 2 / 3)
	h.want("BA:A 720h") // the leaf was due too: by the one that is known
	h.want("")
	h.after(day).want("") // nobody carries the new one
	h.carry()
	h.after(5*time.Minute - time.Second).want("")
	h.after(time.Second).want("Ba:B 720h")
	h.want("")
	h.after(day - time.Second).want("")
	h.after(time.Second).want("B:B 696h")
	h.carry()
	h.want("")
}

// TestFaults: what has been lost or spoiled comes back with as little harm as
// can be.
func TestFaults(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		spoil func(h *history)
		want  string
	}{
		"nothing left":             {func(h *history) { h.state = state{} }, "C:C 720h"},
		"no leaf":                  {func(h *history) { h.state.leaf = nil }, "BA:A 720h"},
		"no leaf, B in force":      {func(h *history) { h.state.leaf = nil; h.carry(); h.after(5 * time.Minute) }, "Ba:B 720h"},
		"another's leaf":           {func(h *history) { h.state.leaf = stranger(h.t, h.now).leaf }, "BA:A 720h"},
		"no keys":                  {func(h *history) { h.keys(0, 1) }, "Ca:A 720h"},
		"no key of the newest":     {func(h *history) { h.keys(0) }, "CA:A 720h"},
		"no key of the oldest":     {func(h *history) { h.keys(1) }, ""},
		"the leaf ended":           {func(h *history) { h.after(31 * day) }, "BA:A 720h"},
		"all ended":                {func(h *history) { h.after(366 * day) }, "C:C 720h"},
		"the oldest ended":         {func(h *history) { h.after(130 * day) }, "B:B 720h"},
		"a strange authority":      {func(h *history) { h.front(stranger(h.t, h.now).authorities[0].certificate) }, "CA:A 720h"},
		"damaged":                  {func(h *history) { h.state.damaged = true }, "BA:A 720h"},
		"other names":              {func(h *history) { h.planner.names = []string{"webhook.example", "192.0.2.1"} }, "BA:A 720h"},
		"no key, other names":      {func(h *history) { h.keys(0, 1); h.planner.names = []string{"webhook.example"} }, "Ca:A 720h"},
		"carried for less":         {func(h *history) { h.carry(); h.after(time.Minute) }, ""},
		"a clock that is behind":   {func(h *history) { h.after(-300 * day) }, ""},
		"unused, and due by now":   {func(h *history) { h.stretch(); h.after(250 * day) }, "DA:A 81600h"},
		"the newest ends, unheard": {func(h *history) { h.after(122 * day) }, "B:B 720h"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHistory(t)
			h.want("A:A 720h")
			h.carry()
			h.now = start().Add(365 * day * 2 / 3)
			h.want("BA:A 720h")
			test.spoil(h)
			h.want(test.want)
			if h.state.leaf == nil || h.state.issuer(h.now) < 0 && test.want != "" {
				t.Errorf("no leaf that anybody believes: %s", h)
			}
		})
	}
}

// keys takes keys away.
func (h *history) keys(indexes ...int) {
	for _, i := range indexes {
		h.state.authorities[i].key = nil
	}
}

func (h *history) front(c *x509.Certificate) {
	h.state.authorities = append([]authority{{certificate: c}}, h.state.authorities...)
}

// stretch has the oldest authority, and the leaf, last for ten years.
func (h *history) stretch() {
	old, err := newAuthority(h.now, 3650*day)
	if err != nil {
		h.t.Fatal(err)
	}
	h.names[string(old.certificate.Raw)] = "A"
	h.state.authorities[1] = old
	if h.state.leaf, err = old.issue(h.now, 3650*day, []string{service}); err != nil {
		h.t.Fatal(err)
	}
	h.known = map[string]time.Time{}
}

// stranger is a whole state of somebody else.
func stranger(t *testing.T, now time.Time) state {
	t.Helper()
	p := planner{times: DefaultTimes(), names: []string{service}, carried: func(*x509.Certificate) time.Time { return time.Time{} }}
	s, _, err := p.next(now, state{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestLeafEndsWithItsAuthority: and is not made again and again for nothing.
func TestLeafEndsWithItsAuthority(t *testing.T) {
	t.Parallel()
	h := newHistory(t)
	h.want("A:A 720h")
	h.now = start().Add(360 * day) // nobody ever carried another
	h.want("BA:A 120h")
	for range 100 {
		h.after(time.Hour)
		h.want("")
	}
	h.after(20 * time.Hour).want("B:B 720h")
}

// TestParse breaks one thing of the Secret at a time: a key that is not the
// certificate's own is never used, and what is left out is told.
func TestParse(t *testing.T) {
	t.Parallel()
	now := start()
	data := func() map[string][]byte {
		d, err := stranger(t, now).data()
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	good, other := data(), data()
	text := func(s state) string {
		keys := 0
		for _, a := range s.authorities {
			if a.key != nil {
				keys++
			}
		}
		return fmt.Sprintf("authorities %d, keys %d, leaf %t, believed %t, damaged %t", len(s.authorities), keys, s.leaf != nil, s.issuer(now) >= 0, s.damaged)
	}
	for name, test := range map[string]struct {
		change map[string][]byte
		want   string
	}{
		"as it is":          {nil, "authorities 1, keys 1, leaf true, believed true, damaged false"},
		"no leaf":           {map[string][]byte{"tls.crt": nil}, "authorities 1, keys 1, leaf false, believed false, damaged true"},
		"no key":            {map[string][]byte{"tls.key": nil}, "authorities 1, keys 1, leaf false, believed false, damaged true"},
		"another's key":     {map[string][]byte{"tls.key": other["tls.key"]}, "authorities 1, keys 1, leaf false, believed false, damaged true"},
		"another's pair":    {map[string][]byte{"tls.key": other["tls.key"], "tls.crt": other["tls.crt"]}, "authorities 1, keys 1, leaf true, believed false, damaged false"},
		"two leaves":        {map[string][]byte{"tls.crt": slices.Concat(good["tls.crt"], other["tls.crt"])}, "authorities 1, keys 1, leaf false, believed false, damaged true"},
		"no authority":      {map[string][]byte{"ca.crt": nil}, "authorities 0, keys 0, leaf true, believed false, damaged true"},
		"another's":         {map[string][]byte{"ca.crt": other["ca.crt"]}, "authorities 1, keys 0, leaf true, believed false, damaged true"},
		"another's too":     {map[string][]byte{"ca.crt": slices.Concat(other["ca.crt"], good["ca.crt"])}, "authorities 2, keys 1, leaf true, believed true, damaged false"},
		"twice":             {map[string][]byte{"ca.crt": slices.Concat(good["ca.crt"], good["ca.crt"])}, "authorities 1, keys 1, leaf true, believed true, damaged true"},
		"a leaf for one":    {map[string][]byte{"ca.crt": good["tls.crt"]}, "authorities 0, keys 0, leaf true, believed false, damaged true"},
		"a leaf beside":     {map[string][]byte{"ca.crt": slices.Concat(good["ca.crt"], good["tls.crt"])}, "authorities 1, keys 1, leaf true, believed true, damaged true"},
		"no authority key":  {map[string][]byte{"ca.key": nil}, "authorities 1, keys 0, leaf true, believed true, damaged false"},
		"its key another's": {map[string][]byte{"ca.key": other["ca.key"]}, "authorities 1, keys 0, leaf true, believed true, damaged true"},
		"half a leaf":       {map[string][]byte{"tls.crt": good["tls.crt"][:200]}, "authorities 1, keys 1, leaf false, believed false, damaged true"},
		"half an authority": {map[string][]byte{"ca.crt": good["ca.crt"][:200]}, "authorities 0, keys 0, leaf true, believed false, damaged true"},
		"half a second": {
			map[string][]byte{"ca.crt": slices.Concat(good["ca.crt"], other["ca.crt"][:200])},
			"authorities 1, keys 1, leaf true, believed true, damaged true",
		},
		"bytes": {
			map[string][]byte{"ca.crt": {0}, "ca.key": {1}, "tls.crt": {2}, "tls.key": {3}},
			"authorities 0, keys 0, leaf false, believed false, damaged true",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			changed := maps.Clone(good)
			maps.Copy(changed, test.change)
			if diff := cmp.Diff(test.want, text(parse(changed))); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestNoLeafBeyondItsUse: the leaf serves, and does nothing else.
func TestNoLeafBeyondItsUse(t *testing.T) {
	t.Parallel()
	s := stranger(t, start())
	c, a := s.leaf.certificate, s.authorities[0].certificate
	if c.IsCA || !bytes.Equal(c.RawIssuer, a.RawSubject) || len(c.ExtKeyUsage) != 1 || c.ExtKeyUsage[0] != x509.ExtKeyUsageServerAuth ||
		c.KeyUsage != x509.KeyUsageDigitalSignature || !cmp.Equal(c.DNSNames, []string{service}) {
		t.Errorf("leaf: %+v", c)
	}
	if !a.IsCA || !a.MaxPathLenZero || a.KeyUsage != x509.KeyUsageCertSign || len(a.ExtKeyUsage) != 0 {
		t.Errorf("authority: %+v", a)
	}
}

// TestClockAhead: what a replica makes while its clock is ahead, is good by the
// clocks of API servers, and goes on being good when its own is right again.
func TestClockAhead(t *testing.T) {
	t.Parallel()
	h := newHistory(t)
	h.want("A:A 720h")
	for _, ahead := range []time.Duration{21 * day, 250 * day, 360 * day} {
		h.now = start().Add(ahead)
		for range 4 { // a new authority, carried, and a leaf by it
			h.step()
			h.carry()
			h.after(10 * time.Minute)
		}
		for _, now := range []time.Time{start(), start().Add(time.Hour), start().Add(20 * day)} {
			for _, c := range append([]*x509.Certificate{h.state.leaf.certificate}, h.state.authorities[h.state.issuer(now)].certificate) {
				if now.Before(c.NotBefore) || ended(c, now) {
					t.Errorf("%s ahead: %s is good from %s to %s, and not at %s", ahead, c.Subject, c.NotBefore, c.NotAfter, now)
				}
			}
		}
	}
}
