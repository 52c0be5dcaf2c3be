// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/reference"
)

// shelf is where the signatures of one digest lie in a lookaside, numbered from 1.
// How many there are is known by the first that is not there.
type shelf struct {
	host   string // or folder, for people
	places *places
	// read reads one. That it is not there is an error of that reason.
	read func(ctx context.Context, n int) ([]byte, error)
}

// lookasideSignatures yields the signatures that a lookaside has of an image. The
// error is why there may be others.
func (c *Client) lookasideSignatures(ctx context.Context, image policy.Image, base *url.URL, yield func(SimpleSignature, error) bool) error {
	if base == nil {
		return nil
	}
	s, err := c.shelf(image, base)
	if err != nil {
		return err
	}
	for n := 1; ; n++ {
		more, err := s.look(ctx, n, yield)
		if err != nil || !more {
			return err
		}
	}
}

// look yields one, which has a place while it is in memory.
func (s shelf) look(ctx context.Context, n int, yield func(SimpleSignature, error) bool) (more bool, err error) {
	back, err := take(ctx, s.places.held)
	if err != nil {
		return false, dialError(ctx, s.host, lookasideSignature, err)
	}
	defer back()
	untrusted, err := s.read(ctx, n)
	switch {
	case isNotFound(err):
		return false, nil
	case err != nil:
		return false, err
	case n > maxSignatures:
		return false, tooMany(s.host, lookasideSignature+"s", maxSignatures)
	}
	return s.places.look(ctx, 1, func() bool { return yield(SimpleSignature{Untrusted: untrusted}, nil) })
}

// lookasideSignature is one, for people.
const lookasideSignature = "lookaside signature"

// shelf finds the signatures of an image in a lookaside.
func (c *Client) shelf(image policy.Image, base *url.URL) (shelf, error) {
	_, repository, _ := strings.Cut(image.Reference.Repository(), "/")
	below, err := shelfBelow(base, repository, image.Digest)
	if err != nil {
		return shelf{}, err
	}
	switch below.Scheme {
	case "http", "https":
		return c.webShelf(below), nil
	case "file":
		return c.folderShelf(base, below)
	default:
		return shelf{}, notAsked("a lookaside", "its address does not begin with https://, http:// or file://")
	}
}

func notAsked(lookaside, why string) *Error {
	return &Error{Reason: policy.ReasonNotReady, Message: fmt.Sprintf("%s is not asked: %s", lookaside, why)}
}

// shelfBelow is the address of the signatures of a digest, but for the number that
// its path is to end with (signature-protocols of go.podman.io/image, "separate
// storage"). It has the query of the base, but not the credentials, if it names any:
// lookasides are shown none.
func shelfBelow(base *url.URL, repository, digest string) (*url.URL, error) {
	below := "/" + repository
	// Whoever parsed the reference has seen to this. What depends on it is that
	// nobody is asked for what is not a signature.
	if path.Clean(below) != below || below == "/" || !reference.IsDigest(digest) {
		return nil, notAsked("a lookaside", fmt.Sprintf("%+.64q cannot be part of its addresses", repository+"@"+digest))
	}
	below += "@" + strings.Replace(digest, ":", "=", 1) + "/signature-"
	web := base.Scheme == "http" || base.Scheme == "https"
	if base.Opaque != "" || web && base.Hostname() == "" {
		return nil, notAsked("a lookaside", "its address has no host")
	}
	address := &url.URL{Scheme: base.Scheme, Host: base.Host, RawQuery: base.RawQuery, ForceQuery: base.ForceQuery}
	address.Path = strings.TrimRight(base.Path, "/") + below
	if base.RawPath != "" {
		address.RawPath = strings.TrimRight(base.RawPath, "/") + below
	}
	return address, nil
}

// numbered is the address of one of the signatures.
func numbered(below *url.URL, n int) *url.URL {
	number := fmt.Sprint(n)
	address := *below
	address.Path += number
	if address.RawPath != "" {
		address.RawPath += number
	}
	return &address
}

// webShelf asks a server: on the server's own way, like a registry that nobody has
// credentials for.
func (c *Client) webShelf(below *url.URL) shelf {
	web := peer{client: c, host: clipped(below.Host)}
	client := &http.Client{Transport: retrier{c.Transport()}, CheckRedirect: web.follows}
	share := sessionKey{repository: web.host, terms: "lookaside"}
	read := func(ctx context.Context, n int) (signature []byte, err error) {
		back, err := c.sessions.shares.take(ctx, share)
		if err != nil {
			return nil, dialError(ctx, web.host, lookasideSignature, err)
		}
		defer back()
		_, err = web.send(withRetries(ctx), request{
			method: http.MethodGet, path: numbered(below, n).String(), what: lookasideSignature, limit: maxSignature,
			take: func(untrustedBody []byte) error {
				signature = fitted(untrustedBody)
				return nil
			},
		}, client)
		return signature, web.explain(err)
	}
	return shelf{host: web.host, places: c.places.of(web.host), read: read}
}

// follows is a [http.Client] CheckRedirect function. What an address says beside
// the path is for the server that it names.
func (p *peer) follows(next *http.Request, before []*http.Request) error {
	next.URL.User = nil
	next.Header.Del("Referer")
	if len(before) > maxRedirects {
		return redirectsError(p.host)
	}
	if before[len(before)-1].URL.Scheme == "https" && next.URL.Scheme != "https" {
		return downgradeError(p.host, next.URL.Host)
	}
	return nil
}

// explain says what to mend where it is another thing than with a registry.
func (p *peer) explain(err error) error {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return err
	}
	explained := *e
	switch {
	case errors.Is(e, http.ErrSchemeMismatch):
		explained.Message = fmt.Sprintf("%s speaks plain HTTP: the address of this lookaside would begin with http://", p.host)
	case isUnknownAuthority(e):
		explained.Message = fmt.Sprintf("%s shows a certificate of an authority that is not trusted; for a lookaside --ca-file brings one that is", p.host)
	case e.Reason == policy.ReasonUnauthorized:
		explained.Message += "; a lookaside is shown no credentials, and must answer 404 where there is none"
	case !strings.Contains(e.Message, p.host):
		explained.Message = "lookaside " + p.host + ": " + e.Message
	}
	return &explained
}

// folderShelf reads files.
func (c *Client) folderShelf(base, below *url.URL) (shelf, error) {
	folder := "lookaside file://" + clipped(base.Path)
	switch {
	case !c.local:
		return shelf{}, &Error{Reason: policy.ReasonNotReady, Message: folder + " is read on the command line only"}
	case below.Host != "" && below.Host != "localhost", !path.IsAbs(below.Path):
		return shelf{}, notAsked(folder, "it is no folder of this host")
	}
	read := func(_ context.Context, n int) ([]byte, error) {
		return readSignature(folder, numbered(below, n).Path)
	}
	return shelf{host: folder, places: c.places.of(folder), read: read}, nil
}

// readSignature reads a file, whose name the one who runs this has chosen, and
// whose contents somebody else has.
func readSignature(folder, name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err == nil && !info.Mode().IsRegular() { // one of them might never end
		err = errors.New("not a regular file")
	}
	if err != nil {
		return nil, fileError(folder, name, err)
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, fileError(folder, name, err)
	}
	defer func() { _ = file.Close() }()
	untrusted, err := io.ReadAll(io.LimitReader(file, maxSignature+1))
	switch {
	case err != nil:
		return nil, fileError(folder, name, err)
	case len(untrusted) > maxSignature:
		return nil, limitError(folder, lookasideSignature, maxSignature)
	}
	return untrusted, nil
}

func fileError(folder, name string, err error) *Error {
	reason := policy.ReasonUnreachable
	if errors.Is(err, fs.ErrNotExist) {
		reason = policy.ReasonNotFound
	}
	if failed, ok := errors.AsType[*fs.PathError](err); ok {
		err = failed.Err
	}
	return &Error{Reason: reason, Message: fmt.Sprintf("%s: %s cannot be read: %s", folder, path.Base(name), err), cause: err}
}
