// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
)

const (
	// maxReview bounds an AdmissionReview, in bytes. The API server takes requests
	// of up to 3 MiB (k8s.io/apiserver, MaxRequestBodyBytes), and a review of an
	// UPDATE holds the object twice, with escapes and the user's extra fields.
	maxReview = 7 << 20
	// firstBody is made room for before anything of a body has arrived: the everyday
	// review, of 1 to 16 KiB, is read in one go, and a stranger's connection that says
	// nothing costs about what its TLS does.
	firstBody = 32 << 10
	// freeBody is what every body may take, so that reviews that are not large
	// neither wait for large ones nor fail because of them.
	freeBody = 64 << 10
)

// DefaultBodies leaves room for 18 of the largest reviews at once, or for 250 of
// half a MiB, which hardly any object exceeds. Twice as much is in use while they
// are decoded: well within the gigabyte that the chart gives to the process.
const DefaultBodies = 128 << 20

// Bodies is the memory that the bodies of large reviews may take in sum, from
// their first bytes until they are answered. It is charged before it is taken, for
// what has arrived and not for what is announced. All handlers of a server share
// one. Make it with [NewBodies].
type Bodies struct {
	limit int64
	held  atomic.Int64
}

// NewBodies returns room for so many bytes.
func NewBodies(limit int64) *Bodies { return &Bodies{limit: limit} }

// take reports whether there was room for so many bytes more; then they are held.
func (b *Bodies) take(bytes int64) bool {
	for {
		held := b.held.Load()
		if bytes > b.limit-held {
			return false
		}
		if b.held.CompareAndSwap(held, held+bytes) {
			return true
		}
	}
}

// share is what one body holds of the room for all, and the most that it may be.
type share struct {
	of          *Bodies
	bytes, most int64
}

// release gives all of it back.
func (s *share) release() {
	if s.bytes > 0 {
		s.of.held.Add(-s.bytes)
		s.bytes = 0
	}
}

// allows reports whether a body may take so many bytes in all.
func (s *share) allows(size int64) bool {
	more := size - freeBody - s.bytes
	if more <= 0 {
		return true
	}
	if !s.of.take(more) {
		return false
	}
	s.bytes += more
	return true
}

func (s *share) tooLarge() error {
	return &httpError{http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is larger than %d bytes", s.most)}
}

// read reads the body of a request. The share, which the caller releases, grows
// with what arrives.
func (s *share) read(r *http.Request) ([]byte, error) {
	most := s.most + 1 // one more shows that it is too large
	switch announced := r.ContentLength; {
	case announced > s.most:
		return nil, s.tooLarge()
	case announced >= 0:
		most = announced // net/http reads no further
	}
	untrustedBody := make([]byte, 0, min(most, firstBody))
	for {
		if size := int64(cap(untrustedBody)); int64(len(untrustedBody)) == size && size < most {
			size = min(max(2*size, freeBody), most)
			if !s.allows(size) {
				return nil, &httpError{http.StatusServiceUnavailable, "too many large reviews at once"}
			}
			untrustedBody = append(make([]byte, 0, size), untrustedBody...)
		}
		n, err := r.Body.Read(untrustedBody[len(untrustedBody):cap(untrustedBody)])
		untrustedBody = untrustedBody[:len(untrustedBody)+n]
		switch {
		case int64(len(untrustedBody)) > s.most:
			return nil, s.tooLarge()
		case errors.Is(err, io.EOF):
			return untrustedBody, nil
		case err != nil:
			return nil, &httpError{http.StatusBadRequest, "the body could not be read"}
		}
	}
}
