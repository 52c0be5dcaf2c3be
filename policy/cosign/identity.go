// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cosign

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/sigstore/sigstore-go/pkg/fulcio/certificate"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
)

// identity is an Identity made ready.
type identity struct{ issuer, subject matcher }

// matcher matches one value: by an expression if there is one, else exactly.
type matcher struct {
	exact      string
	expression *regexp.Regexp
}

// matches never holds for a value that is missing, not even for an expression
// that does: a certificate without issuer or subject is nobody's.
func (m matcher) matches(value string) bool {
	if value == "" {
		return false
	}
	if m.expression != nil {
		return m.expression.MatchString(value)
	}
	return m.exact == value
}

func (a *authority) compileIdentities() error {
	if a.Keyless == nil {
		return nil
	}
	if len(a.Keyless.Identities) == 0 {
		return errors.New("keyless names no identities: anybody could sign")
	}
	for i, written := range a.Keyless.Identities {
		issuer, err := compileMatcher("issuer", written.Issuer, written.IssuerRegExp, a.Keyless.Unanchored)
		if err != nil {
			return fmt.Errorf("identity %d: %w", i, err)
		}
		subject, err := compileMatcher("subject", written.Subject, written.SubjectRegExp, a.Keyless.Unanchored)
		if err != nil {
			return fmt.Errorf("identity %d: %w", i, err)
		}
		a.identities = append(a.identities, identity{issuer, subject})
	}
	return nil
}

func compileMatcher(what, exact, expression string, unanchored bool) (matcher, error) {
	if expression == "" {
		if exact == "" {
			return matcher{}, fmt.Errorf("it has neither %s nor %sRegExp", what, what)
		}
		return matcher{exact: exact}, nil
	}
	// By itself first: what is not an expression must not become one by what is
	// put around it ("a)|(b").
	compiled, err := regexp.Compile(expression)
	if err == nil && !unanchored {
		compiled, err = regexp.Compile(`\A(?:` + expression + `)\z`)
	}
	if err != nil {
		return matcher{}, fmt.Errorf("its %sRegExp is not an expression: %w", what, err)
	}
	return matcher{expression: compiled}, nil
}

// signer is who made a signature: a key, or whom a certificate names.
type signer struct {
	key      *key
	issuer   string
	subjects []string
	// github is what a certificate says of a workflow, said what was signed.
	github certificate.Extensions
	said   [sha256.Size]byte
}

// signerOf reads whom a verified certificate names, by sigstore's own readers.
func signerOf(verified *x509.Certificate) (signer, error) {
	extensions, err := certificate.ParseExtensions(verified.Extensions)
	if err != nil {
		return signer{}, missed(nearCertificate, "its certificate has extensions that cannot be read")
	}
	return signer{issuer: extensions.Issuer, github: extensions, subjects: cryptoutils.GetSubjectAlternateNames(verified)}, nil
}

// is reports whether the signer is one of the identities: issuer and subject of
// one and the same.
func (s signer) is(one []identity) bool {
	return slices.ContainsFunc(one, func(i identity) bool {
		return i.issuer.matches(s.issuer) && slices.ContainsFunc(s.subjects, i.subject.matches)
	})
}

// String names the signer, if it has a name.
func (s signer) String() string {
	if s.key != nil {
		return ""
	}
	return fmt.Sprintf("signed by %s (issuer %s)", quoted(strings.Join(s.subjects, ", ")), quoted(s.issuer))
}

// maxQuoted is how much of a text is repeated that somebody else chose. Real
// identities are shorter: the address of a workflow in GitHub has some 120 bytes.
const maxQuoted = 256

// quoted makes a text of somebody else's fit for a message: one line of bounded
// length, without anything that a terminal obeys.
func quoted(untrusted string) string {
	if len(untrusted) > maxQuoted {
		return strconv.Quote(untrusted[:maxQuoted]) + "…"
	}
	return strconv.Quote(untrusted)
}

// oneLine makes a text fit for a message that is no quotation.
func oneLine(text string) string {
	printable := strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text)
	if len(printable) > 2*maxQuoted {
		return strings.ToValidUTF8(printable[:2*maxQuoted], "") + "…"
	}
	return printable
}
