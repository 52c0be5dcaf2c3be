// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registrytest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/types"
)

// hangLimit ends what hangs although its client never goes away: longer than any deadline of an admission
// request (30 s, the API server's greatest), shorter than a test run.
const hangLimit = time.Minute

// endlessLimit ends Endless for a client that swallows all of it: far beyond every bound on a body.
const endlessLimit = 1 << 30

// Status answers with code and an error body as the OCI distribution specification writes it.
func Status(code int) Behaviour {
	return replace(func(w http.ResponseWriter, _ *http.Request) { writeError(w, code) })
}

// Challenge answers 401 with the WWW-Authenticate header, for example
// `Bearer realm="http://127.0.0.2:80/token"`.
func Challenge(wwwAuthenticate string) Behaviour {
	return replace(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", wwwAuthenticate)
		writeError(w, http.StatusUnauthorized)
	})
}

// Body answers 200 with the body.
func Body(contentType, body string) Behaviour {
	return replace(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write([]byte(body)) // the client may be gone
	})
}

// Garbage answers 200 with the media type of a manifest and bytes that are none.
func Garbage() Behaviour {
	return Body(string(types.OCIManifestSchema1), "\x00\xff<html>not a manifest")
}

// Hang gives no answer, until the client goes away, the registry is closed, or a minute is over; then the
// connection is broken.
func Hang() Behaviour {
	return replace(func(_ http.ResponseWriter, req *http.Request) {
		wait(req, hangLimit, nil)
		panic(http.ErrAbortHandler)
	})
}

// Hold keeps the request back until release is closed, then lets it go on.
func Hold(release <-chan struct{}) Behaviour {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			wait(req, hangLimit, release)
			next.ServeHTTP(w, req)
		})
	}
}

// Delay keeps the request back for d, then lets it go on.
func Delay(d time.Duration) Behaviour {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			wait(req, d, nil)
			next.ServeHTTP(w, req)
		})
	}
}

// wait returns when the client goes away or the server closes (both end the request's context), after d, or
// when release is closed.
func wait(req *http.Request, d time.Duration, release <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-req.Context().Done():
	case <-timer.C:
	case <-release:
	}
}

// ResetMidBody promises the whole answer, sends half of its body and resets the connection.
func ResetMidBody() Behaviour {
	return change(func(w http.ResponseWriter, _ *http.Request, a *answer) {
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		defer conn.Close()
		writeHead(buffered.Writer, a)
		_, _ = buffered.Write(a.body.Bytes()[:a.body.Len()/2])
		_ = buffered.Flush()
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // makes Close send RST instead of FIN
		}
	})
}

func writeHead(w *bufio.Writer, a *answer) {
	a.header.Set("Content-Length", strconv.Itoa(a.body.Len()))
	_, _ = fmt.Fprintf(w, "HTTP/1.1 %d %s\r\n", a.status, http.StatusText(a.status))
	_ = a.header.Write(w)
	_, _ = w.WriteString("\r\n")
}

// WrongDigest answers as usual but for Docker-Content-Digest, which says digest; "" removes it.
func WrongDigest(digest string) Behaviour { return Header("Docker-Content-Digest", digest) }

// Header answers as usual but for one header of the answer; "" removes it.
func Header(name, value string) Behaviour {
	return change(func(w http.ResponseWriter, _ *http.Request, a *answer) {
		a.header.Del(name)
		if value != "" {
			a.header.Set(name, value)
		}
		a.send(w)
	})
}

// Endless answers 200 with JSON that goes on until the client goes away, or to 1 GiB, of unstated length.
func Endless() Behaviour {
	return replace(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", string(types.OCIManifestSchema1))
		writePadded(w, endlessLimit)
	})
}

// Oversized answers 200 with a manifest of size bytes, at least 128, and says so in Content-Length. It is
// well-formed JSON.
func Oversized(size int64) Behaviour {
	return replace(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", string(types.OCIManifestSchema1))
		w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
		writePadded(w, size)
	})
}

// writePadded writes a manifest of size bytes, most of them in an annotation, as long as the client reads.
func writePadded(w io.Writer, size int64) {
	const head = `{"schemaVersion":2,"mediaType":"` + string(types.OCIManifestSchema1) + `","annotations":{"pad":"`
	const tail = `"}}`
	if _, err := w.Write([]byte(head)); err != nil {
		return
	}
	padding := []byte(strings.Repeat("a", 64<<10))
	for left := size - int64(len(head)+len(tail)); left > 0; left -= int64(len(padding)) {
		if _, err := w.Write(padding[:min(left, int64(len(padding)))]); err != nil {
			return
		}
	}
	_, _ = w.Write([]byte(tail)) // the client may be gone
}

// Sequence answers the i-th manifest request with the i-th image, and every later one with the last. HEAD and
// GET count alike. The images must be in this registry.
func Sequence(images ...Image) Behaviour {
	return choose(images, func(n int) int { return min(n, len(images)-1) })
}

// FlipFlop answers the i-th manifest request with the i-th image, round and round. HEAD and GET count alike.
func FlipFlop(images ...Image) Behaviour {
	return choose(images, func(n int) int { return n % len(images) })
}

func choose(images []Image, pick func(n int) int) Behaviour {
	var asked atomic.Int64
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if _, kind, _ := splitPath(req.URL.Path); kind != "manifests" || len(images) == 0 {
				next.ServeHTTP(w, req)
				return
			}
			image := images[pick(int(asked.Add(1)-1))]
			other := req.Clone(req.Context())
			other.URL.Path = "/v2/" + image.Repository + "/manifests/" + image.Digest
			other.URL.RawPath = ""
			next.ServeHTTP(w, other)
		})
	}
}

// MoveTagAfter answers as usual and, when n matching requests were answered, has moved the image's tag to
// digest before the n-th answer is sent. An n below 1 moves it before the first request is looked at.
func (r *Registry) MoveTagAfter(n int, image Image, digest string) Behaviour {
	var asked atomic.Int64
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			count := asked.Add(1)
			var err error
			if n < 1 && count == 1 {
				err = r.retag(image.Repository, image.Tag, digest)
			}
			a := capture(next, req)
			if n >= 1 && count == int64(n) {
				err = r.retag(image.Repository, image.Tag, digest)
			}
			if err != nil { // a test that names what is not there must not pass by chance
				http.Error(w, "registrytest: "+err.Error(), http.StatusNotImplemented)
				return
			}
			a.send(w)
		})
	}
}

// Redirect answers 307 to the same path and query under base, for example "http://127.0.0.2:1234".
func Redirect(base string) Behaviour {
	return replace(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Location", strings.TrimSuffix(base, "/")+req.URL.RequestURI())
		w.WriteHeader(http.StatusTemporaryRedirect)
	})
}

// SlowDrip answers as usual, one byte of the body at a time.
func SlowDrip(every time.Duration) Behaviour {
	return change(func(w http.ResponseWriter, req *http.Request, a *answer) {
		controller := http.NewResponseController(w)
		maps.Copy(w.Header(), a.header)
		w.WriteHeader(a.status)
		for _, b := range a.body.Bytes() {
			_ = controller.Flush()
			wait(req, every, nil)
			if _, err := w.Write([]byte{b}); err != nil || req.Context().Err() != nil {
				panic(http.ErrAbortHandler)
			}
		}
	})
}

// replace makes a Behaviour that answers in the registry's stead.
func replace(handler http.HandlerFunc) Behaviour {
	return func(http.Handler) http.Handler { return handler }
}

// change makes a Behaviour that is handed the usual answer and sends what it likes of it.
func change(send func(http.ResponseWriter, *http.Request, *answer)) Behaviour {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			send(w, req, capture(next, req))
		})
	}
}

// writeError writes an error body of the OCI distribution specification ("error codes").
func writeError(w http.ResponseWriter, status int) {
	codes := map[int]string{
		http.StatusUnauthorized: "UNAUTHORIZED", http.StatusForbidden: "DENIED",
		http.StatusNotFound: "MANIFEST_UNKNOWN", http.StatusTooManyRequests: "TOOMANYREQUESTS",
	}
	code, ok := codes[status]
	if !ok {
		code = "UNKNOWN"
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{ // the client may be gone
		"errors": []map[string]string{{"code": code, "message": http.StatusText(status)}},
	})
}
