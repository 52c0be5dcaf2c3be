// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cosign

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
)

// terms is what signatures have to bring besides themselves. Authorities that
// ask for the same share one.
type terms struct {
	termsID

	// material vouches for certificates, log entries and timestamps. It is nil
	// if none of them is asked for.
	material root.TrustedMaterial
	// bundles are the ways in which a keyless bundle can fulfil them, any one of
	// which is enough.
	bundles []*verify.Verifier
}

// termsID tells terms apart.
type termsID struct {
	trust                             [sha256.Size]byte
	keyless, unlogged, log, timestamp bool
}

// bare reports whether a signature by a key is enough.
func (t *terms) bare() bool { return !t.keyless && !t.log && !t.timestamp }

// agree finds an authority's terms, or makes them.
func (c *compiler) agree(a Authority) (*terms, error) {
	id := termsID{keyless: a.Keyless != nil, log: a.Log, timestamp: a.Timestamp}
	made := &terms{termsID: id}
	if !made.bare() {
		if a.Trust == nil || a.Trust.Material == nil {
			return nil, errors.New("it has no trust root, by which certificates, log entries and timestamps are vouched for")
		}
		made.trust, made.material = a.Trust.Hash, a.Trust.Material
		made.unlogged = made.keyless && a.Keyless.IgnoreSCT
	}
	if found := c.terms[made.termsID]; found != nil {
		return found, nil
	}
	if made.keyless {
		var err error
		if made.bundles, err = made.keylessBundles(); err != nil {
			return nil, err
		}
	}
	c.terms[made.termsID] = made
	return made, nil
}

// keylessBundles makes the verifiers of bundles with a certificate. Each of them
// asks for a time that somebody trusted vouches for: a certificate counts only
// at that time, never now.
func (t *terms) keylessBundles() ([]*verify.Verifier, error) {
	logged := []verify.VerifierOption{verify.WithTransparencyLog(1), verify.WithObserverTimestamps(1)}
	stamped := []verify.VerifierOption{verify.WithSignedTimestamps(1)}
	var ways [][]verify.VerifierOption
	switch {
	case t.log && t.timestamp:
		ways = append(ways, []verify.VerifierOption{verify.WithTransparencyLog(1), verify.WithSignedTimestamps(1)})
	case t.log:
		ways = append(ways, logged)
	case t.timestamp:
		ways = append(ways, stamped)
	default:
		ways = append(ways, logged, stamped)
	}
	var made []*verify.Verifier
	for _, way := range ways {
		if !t.unlogged {
			way = append(way, verify.WithSignedCertificateTimestamps(1))
		}
		verifier, err := verify.NewVerifier(t.material, way...)
		if err != nil {
			return nil, fmt.Errorf("preparing the verifier of bundles: %w", err)
		}
		made = append(made, verifier)
	}
	return made, nil
}

// keyBundle makes the verifier of bundles by one key, which is whatever the
// bundle says of keys.
func (t *terms) keyBundle(k *key) (*verify.Verifier, error) {
	material := keyMaterial{TrustedMaterial: t.material, key: k.verifier}
	var asked []verify.VerifierOption
	if t.log {
		asked = append(asked, verify.WithTransparencyLog(1))
	}
	if t.timestamp {
		asked = append(asked, verify.WithSignedTimestamps(1))
	} else {
		asked = append(asked, verify.WithNoObserverTimestamps())
	}
	verifier, err := verify.NewVerifier(material, asked...)
	if err != nil {
		return nil, fmt.Errorf("preparing the verifier of bundles: %w", err)
	}
	return verifier, nil
}

// nearness says how much of what is asked for was there, so that of all that
// failed the one can be told that failed last.
type nearness int

// What failed, in the order in which it is verified.
const (
	nearNothing nearness = iota
	nearTime
	nearCertificate
	nearCertificateLog
	nearIdentity
	nearImage
	nearAnnotations
	nearPolicy
)

// miss is why something that was found satisfies nobody. Its text is one short
// line that follows "its signature", or stands for itself.
type miss struct {
	near nearness
	text string
}

func (m *miss) Error() string { return m.text }

func missed(near nearness, format string, args ...any) *miss {
	return &miss{near, fmt.Sprintf(format, args...)}
}

// The misses that need no detail.
var (
	errSignature   = missed(nearNothing, "the signature does not hold")
	errNoIdentity  = missed(nearNothing, "no signature with a certificate")
	errCertificate = missed(nearCertificate, "its certificate is not vouched for by the trust root")
	errNoSCT       = missed(nearCertificateLog, "its certificate is not vouched for by a certificate log of the trust root (SCT)")
	errNoLog       = missed(nearTime, "no log entry that the trust root vouches for belongs to it")
	errNoTimestamp = missed(nearTime, "no signed timestamp that the trust root vouches for belongs to it")
	errNoTime      = missed(nearTime, "neither a log entry nor a signed timestamp that the trust root vouches for belongs to it")
	errExpired     = missed(nearCertificate, "signed outside the time in which its certificate was valid")
)

// shorten names what sigstore-go found wrong with a bundle. Its errors hold
// dumps of several lines, and text of the bundle's.
func (t *terms) shorten(err error) error {
	text := err.Error()
	for _, known := range []struct {
		part string
		miss *miss
	}{
		{"outside certificate validity", errExpired},
		{"failed to verify log inclusion", errNoLog},
		{"failed to verify timestamps", errNoTimestamp},
		{"failed to verify leaf certificate", errCertificate},
		{"failed to verify signed certificate timestamp", errNoSCT},
	} {
		if !strings.Contains(text, known.part) {
			continue
		}
		if known.miss.near == nearTime && t.keyless && !t.log && !t.timestamp {
			return errNoTime
		}
		return known.miss
	}
	return errSignature
}

// during reports whether a time is one of those between two others.
func during(t, from, until time.Time) bool { return !t.Before(from) && !t.After(until) }
