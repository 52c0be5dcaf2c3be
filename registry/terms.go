// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pratique-dev/pratique/policy"
)

// allowsPlainHTTP is what to mend where credentials are needed.
const allowsPlainHTTP = "insecurePlainHTTP in an ImageConfig will allow it"

// terms are what rules say of how one image's registry is asked. Of another
// host that it leads to they say nothing but what realms says.
type terms struct {
	way *way
	// plainHTTP says that the registry is asked over plain HTTP, and shown
	// credentials for it.
	plainHTTP bool
	// https says that it never is, whatever the server's options say: a
	// certificate that is named must not be forgotten about.
	https bool
	// realms are canonical.
	realms []string
	// key tells them from all others. The server's own, without realms, have none.
	key string
}

// terms are those of an image, or why it cannot be asked for.
func (c *Client) terms(image policy.Image) (terms, error) {
	var t terms
	transport := image.Transport
	if transport != nil && transport.Unusable != "" {
		return t, unusableError(image, transport.Unusable, nil)
	}
	var err error
	if t.way, err = c.ways.of(transport); err != nil {
		return t, unusableError(image, err.Error(), err)
	}
	if image.Authentication != nil && len(image.Authentication.Realms) > 0 {
		t.realms = slices.Compact(slices.Sorted(slices.Values(image.Authentication.Realms)))
		t.key = fmt.Sprintf("%q", t.realms)
	}
	if transport != nil {
		t.plainHTTP, t.https = transport.PlainHTTP, !transport.PlainHTTP
		t.key = fmt.Sprintf("%x%s", transport.Hash, t.key)
	}
	return t, nil
}

func unusableError(image policy.Image, why string, cause error) *Error {
	return &Error{
		Reason:  policy.ReasonNotReady,
		Message: fmt.Sprintf("%s is not asked: %s", image.Reference.Host(), why),
		cause:   cause,
	}
}

// plain reports whether a host is asked over plain HTTP. own is the registry's,
// as requests name it.
func (t terms) plain(own, host string) bool {
	// Another spelling of the registry's host may be another port, of which its
	// rules say nothing: 443 and none are one over HTTPS alone.
	if strings.EqualFold(host, own) && (t.plainHTTP || t.https) {
		return t.plainHTTP
	}
	return t.way.common.isInsecure(host)
}
